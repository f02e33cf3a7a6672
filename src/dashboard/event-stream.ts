// Parses server-sent events from text that is cut anywhere. https://html.spec.whatwg.org/multipage/server-sent-events.html, sections 9.2.5
// and 9.2.6. Pure.

export interface StreamEvent {
  /** "message" if the server gives no name. */
  name: string;
  data: string;
}

export class EventStreamParser {
  #rest = "";
  #name = "";
  #data: string[] = [];

  /** The events that this text completes. */
  push(text: string): StreamEvent[] {
    const events: StreamEvent[] = [];
    this.#rest += text;
    for (;;) {
      const end = /\r\n|\n|\r(?!$)/.exec(this.#rest);
      if (end === null) return events;
      const line = this.#rest.slice(0, end.index);
      this.#rest = this.#rest.slice(end.index + end[0].length);
      if (line === "") this.#dispatch(events);
      else this.#take(line);
    }
  }

  #take(line: string): void {
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.#name = value;
    else if (field === "data") this.#data.push(value);
  }

  #dispatch(events: StreamEvent[]): void {
    if (this.#data.length > 0) events.push({ name: this.#name || "message", data: this.#data.join("\n") });
    this.#name = "";
    this.#data = [];
  }
}
