// A line chart of the last ten minutes, with uPlot. It is drawn again when the points, the width or the colours change.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { HISTORY_SECONDS } from "../observe/figures.ts";
import type { Point } from "../observe/history.ts";

export interface Series {
  label: string;
  figure: (point: Point) => number;
  /** Name of a custom property of the style sheet. */
  colour: string;
}

export interface ChartProps {
  title: string;
  points: readonly Point[];
  series: readonly Series[];
  format: (value: number) => string;
}

const HEIGHT = 150;
const AXIS_WIDTH = 64;

export function Chart({ title, points, series, format }: ChartProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const last = points.at(-1);

  useEffect(() => {
    const element = place.current;
    if (element === null) return undefined;
    const make = (): void => {
      plot.current?.destroy();
      plot.current = new uPlot(optionsOf(series, format, element), dataOf(points, series), element);
    };
    make();
    const sizes = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    sizes.observe(element);
    // A canvas does not follow the style sheet by itself.
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", make);
    addEventListener("themechange", make);
    return () => {
      sizes.disconnect();
      scheme.removeEventListener("change", make);
      removeEventListener("themechange", make);
      plot.current?.destroy();
    };
  }, []);

  useEffect(() => plot.current?.setData(dataOf(points, series)), [points]);

  const latest = series.map(({ label, figure }) => `${label} ${last === undefined ? "-" : format(figure(last))}`);
  return (
    <figure class="panel chart">
      <figcaption>
        <h2>{title}</h2>
        <ul class="legend">
          {series.map(({ label, figure, colour }) => (
            <li key={label}>
              <span class="swatch" style={{ background: `var(${colour})` }} aria-hidden="true" />
              {label} <b>{last === undefined ? "-" : format(figure(last))}</b>
            </li>
          ))}
        </ul>
      </figcaption>
      <div ref={place} role="img" aria-label={`${title}, last ten minutes; now: ${latest.join(", ")}`} />
    </figure>
  );
}

function dataOf(points: readonly Point[], series: readonly Series[]): uPlot.AlignedData {
  return [points.map(({ at }) => at), ...series.map(({ figure }) => points.map(figure))];
}

function optionsOf(series: readonly Series[], format: (value: number) => string, place: HTMLElement): uPlot.Options {
  const style = getComputedStyle(place);
  // A canvas needs the colour itself; the property may hold light-dark().
  const colour = (name: string): string => {
    place.style.color = `var(${name})`;
    return style.color;
  };
  const font = `11px ${style.getPropertyValue("--font")}`;
  const axis = {
    stroke: colour("--muted"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
    font,
  };
  const now = (): number => Date.now() / 1000;
  return {
    width: place.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, points: { size: 6 } },
    scales: {
      x: { time: true, range: (_, __, max) => [(max || now()) - HISTORY_SECONDS, max || now()] },
      // At least four, so that the labels of the axis are whole numbers.
      y: { range: (_, __, max) => [0, Math.max(4, max * 1.1)] },
    },
    axes: [
      { ...axis, values: (_, times) => times.map((time) => clock(time)), space: 70, size: 24 },
      { ...axis, size: AXIS_WIDTH, space: 32, values: (_, values) => values.map(format) },
    ],
    series: [
      {},
      ...series.map((one) => ({
        label: one.label,
        stroke: colour(one.colour),
        fill: `color-mix(in srgb, ${colour(one.colour)} 12%, transparent)`,
        width: 1.5,
        points: { show: false },
      })),
    ],
  };
}

function clock(seconds: number): string {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}
