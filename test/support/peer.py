"""A peer that is not Bun: TCP, TLS and the PROXY protocol by Python's own ssl and socket modules.

Takes one JSON object a line, answers each with one line, and tells of connections that its servers accept in lines of
their own. Bytes travel as latin-1 text. Every operation runs in a thread of its own.
"""

import hashlib
import json
import resource
import select
import socket
import ssl
import struct
import sys
import threading
import time

TIMEOUT_S = 15
CHUNK = 65536

output = threading.Lock()
connections = {}
servers = {}
numbers = iter(range(1, 1 << 62))


def say(message):
    with output:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


# ---------------------------------------------------------------------- TLS

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def context_of(tls, server):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if "ca" in tls:
        context.load_verify_locations(tls["ca"])
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = not server
    if "cert" in tls:
        context.load_cert_chain(tls["cert"], tls["key"])
    if "alpn" in tls:
        context.set_alpn_protocols(tls["alpn"])
    if "min" in tls:
        context.minimum_version = VERSIONS[tls["min"]]
    if "max" in tls:
        context.maximum_version = VERSIONS[tls["max"]]
    return context


class Stalled(ValueError):
    pass


class Connection:
    """One socket, with TLS on it or not. TLS runs over memory, so that every byte and every end is distinguishable."""

    def __init__(self, sock):
        sock.settimeout(TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self.tls = None
        self.pending = b""
        self.end = None
        # Number of flights that are sent whole; the next one is sent without its last byte.
        self.flights = None
        # The hello in records of this many bytes, and in segments of this many.
        self.records = None
        self.segments = None
        # Bytes that are sent together with the hello.
        self.preface = None

    # -- TLS

    def secure(self, context, server, name=None):
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        if self.pending:
            self.incoming.write(self.pending)
            self.pending = b""
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server, server_hostname=name)
        self.drive(self.tls.do_handshake)

    def drive(self, step, *arguments):
        while True:
            try:
                result = step(*arguments)
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                data = self.socket.recv(CHUNK)
                if data:
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()
            except ssl.SSLError:
                try:
                    self.flush()
                except OSError:
                    pass
                raise

    def flush(self):
        data = self.outgoing.read()
        if not data:
            return
        if self.flights is not None:
            if self.flights == 0:
                self.socket.sendall(data[:-1])
                raise Stalled("the last byte of a flight was kept back")
            self.flights -= 1
        if self.records is not None:
            data, self.records = in_records(data, self.records), None
        if self.preface is not None:
            data, self.preface = self.preface + data, None
        if self.segments is not None:
            for at in range(0, len(data), self.segments):
                self.socket.sendall(data[at : at + self.segments])
                # Usually lets the other side read the bytes so far.
                time.sleep(0)
            self.segments = None
            return
        self.socket.sendall(data)

    def facts(self):
        if self.tls is None:
            return None
        certificate = self.tls.getpeercert(True)
        subject = self.tls.getpeercert() or {}
        return {
            "version": self.tls.version(),
            "cipher": self.tls.cipher()[0],
            "alpn": self.tls.selected_alpn_protocol(),
            "reused": self.tls.session_reused,
            "fingerprint": hashlib.sha256(certificate).hexdigest() if certificate else None,
            "peer": dict(pair[0] for pair in subject.get("subject", ())).get("commonName"),
            "name": getattr(self.tls, "asked_name", None),
        }

    # -- bytes

    def send(self, data):
        if self.tls is None:
            self.socket.sendall(data)
        else:
            self.drive(self.tls.write, data)

    def receive(self):
        """Some bytes, or none, and then `end` has the reason: "close_notify", "fin" or "reset"."""
        if self.pending:
            data, self.pending = self.pending, b""
            return data
        if self.end is not None:
            return b""
        try:
            data = self.socket.recv(CHUNK) if self.tls is None else self.drive(self.tls.read, CHUNK)
            if not data:
                self.end = "fin" if self.tls is None else "close_notify"
            return data
        except ssl.SSLZeroReturnError:
            self.end = "close_notify"
        except ssl.SSLEOFError:
            self.end = "fin"
        except (ConnectionResetError, BrokenPipeError):
            self.end = "reset"
        return b""

    def read(self, until=None, count=None):
        data = b""
        while True:
            if until is not None and until in data:
                cut = data.index(until) + len(until)
                data, self.pending = data[:cut], data[cut:] + self.pending
                return data
            if count is not None and len(data) >= count:
                data, self.pending = data[:count], data[count:] + self.pending
                return data
            more = self.receive()
            if not more:
                return data
            data += more

    # -- ends

    def close_notify(self):
        """Sends close_notify without FIN."""
        try:
            self.tls.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLError):
            pass
        self.flush()

    def fin(self):
        self.socket.shutdown(socket.SHUT_WR)

    def finish(self):
        if self.tls is not None:
            self.close_notify()
        self.fin()

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def segments_in(self):
        """The number of received segments, once everything sent is acknowledged: tcpi_segs_in, tcpi_unacked (linux/tcp.h)."""
        while True:
            info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
            if struct.unpack_from("I", info, 24)[0] == 0:
                return struct.unpack_from("I", info, 140)[0]
            time.sleep(0.002)

    def raw_end(self):
        """How its TCP connection ends: "fin" or "reset"."""
        try:
            while self.socket.recv(CHUNK):
                pass
            return "fin"
        except (ConnectionResetError, BrokenPipeError):
            return "reset"


# ---------------------------------------------------------------------- the PROXY protocol, by the standard's text

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
TLVS = {0x01: "alpn", 0x02: "authority", 0x03: "crc32c", 0x05: "unique_id", 0x20: "ssl", 0x30: "netns"}
SSL_TLVS = {0x21: "version", 0x22: "cn", 0x23: "cipher", 0x24: "sig_alg", 0x25: "key_alg"}


def read_exactly(connection, count):
    data = connection.read(count=count)
    if len(data) < count:
        raise ValueError("the header is cut: %r" % data)
    return data


def read_proxy_header(connection):
    first = read_exactly(connection, 6)
    if first == b"PROXY ":
        line = connection.read(until=b"\r\n")
        fields = line[:-2].decode("ascii").split(" ")
        header = {"version": 1, "command": "PROXY", "family": fields[0], "tlvs": {}}
        if fields[0] in ("TCP4", "TCP6"):
            family = socket.AF_INET if fields[0] == "TCP4" else socket.AF_INET6
            for address in fields[1:3]:
                socket.inet_pton(family, address)
            _, header["source"], header["destination"], sport, dport = fields
            header["source_port"], header["destination_port"] = int(sport), int(dport)
        return header
    rest = read_exactly(connection, 10)
    fixed = first + rest
    if fixed[:12] != SIGNATURE:
        raise ValueError("no PROXY header: %r" % fixed)
    version_command, family_protocol, length = struct.unpack("!BBH", fixed[12:])
    block = read_exactly(connection, length) if length else b""
    if version_command >> 4 != 2:
        raise ValueError("version %d" % (version_command >> 4))
    header = {
        "version": 2,
        "command": {0: "LOCAL", 1: "PROXY"}[version_command & 15],
        "family": {0x00: "UNSPEC", 0x11: "TCP4", 0x21: "TCP6", 0x31: "UNIX"}[family_protocol],
        "length": length,
    }
    size = {"UNSPEC": 0, "TCP4": 12, "TCP6": 36, "UNIX": 216}[header["family"]]
    if size in (12, 36):
        family = socket.AF_INET if size == 12 else socket.AF_INET6
        half = (size - 4) // 2
        header["source"] = socket.inet_ntop(family, block[:half])
        header["destination"] = socket.inet_ntop(family, block[half : 2 * half])
        header["source_port"], header["destination_port"] = struct.unpack("!HH", block[2 * half : size])
    header["tlvs"] = read_tlvs(block[size:], TLVS)
    if "ssl" in header["tlvs"]:
        value = header["tlvs"]["ssl"].encode("latin-1")
        client, verify = struct.unpack("!BI", value[:5])
        header["tlvs"]["ssl"] = {"client": client, "verify": verify, **read_tlvs(value[5:], SSL_TLVS)}
    return header


def read_tlvs(block, names):
    tlvs = {}
    while block:
        kind, length = struct.unpack("!BH", block[:3])
        if len(block) < 3 + length:
            raise ValueError("a TLV is cut")
        tlvs[names.get(kind, "0x%02x" % kind)] = block[3 : 3 + length].decode("latin-1")
        block = block[3 + length :]
    return tlvs


# ---------------------------------------------------------------------- servers


def note_name(tls, name, _):
    tls.asked_name = name


class Server:
    """Accepts, reads the PROXY header and does the handshake if told to, reports them, and then runs its `mode`."""

    def __init__(self, number, options):
        self.number = number
        self.options = options
        tls = options.get("tls")
        self.context = None
        if tls is not None:
            # One context for all connections, so that sessions resume.
            self.context = context_of(tls, True)
            self.context.sni_callback = note_name
        self.socket = socket.create_server(("127.0.0.1", options.get("port", 0)), backlog=256)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock, peer = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock, peer), daemon=True).start()

    def serve(self, sock, peer):
        connection = Connection(sock)
        number = next(numbers)
        connections[number] = connection
        event = {"event": "connection", "server": self.number, "connection": number, "peer": peer[1]}
        try:
            if self.options.get("greeting"):
                connection.send(self.options["greeting"].encode("latin-1"))
            if self.options.get("proxy"):
                event["header"] = read_proxy_header(connection)
            if self.context is not None:
                connection.secure(self.context, True)
            event["tls"] = connection.facts()
        except (OSError, ValueError, KeyError, struct.error) as error:
            event["error"] = "%s: %s" % (type(error).__name__, error)
            say(event)
            sock.close()
            return
        say(event)
        if self.options.get("mode", "echo") == "echo":
            self.echo(connection)

    def echo(self, connection):
        try:
            while True:
                data = connection.receive()
                if not data:
                    break
                connection.send(data)
            if connection.end != "reset":
                connection.finish()
        except OSError:
            pass
        connection.socket.close()


# ---------------------------------------------------------------------- operations


def in_records(flight, size):
    """Splits the single handshake record of a hello into several, which a TLS server must accept (RFC 8446, section 5.1)."""
    kind, payload = flight[:3], flight[5:]
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    return b"".join(kind + struct.pack("!H", len(piece)) + piece for piece in pieces)


def connect(
    port, host="127.0.0.1", local=None, preface="", joined=False, tls=None, stall=None, records=None, segments=None
):
    sock = socket.create_connection((host, port), TIMEOUT_S, (local, 0) if local else None)
    connection = Connection(sock)
    if joined:
        connection.preface = preface.encode("latin-1")
    elif preface:
        connection.socket.sendall(preface.encode("latin-1"))
    connection.flights, connection.records, connection.segments = stall, records, segments
    answer = {"address": "%s:%d" % sock.getsockname()[:2], "error": None}
    if tls is not None:
        try:
            connection.secure(context_of(tls, False), False, tls.get("name"))
        except Stalled:
            answer["error"] = "stalled"
        except (OSError, ValueError) as error:
            answer["error"] = "%s: %s" % (type(error).__name__, error)
            sock.close()
    number = next(numbers)
    connections[number] = connection
    answer["connection"] = number
    answer["tls"] = connection.facts() if answer["error"] is None else None
    return answer


def serve(**options):
    number = next(numbers)
    server = servers[number] = Server(number, options)
    return {"server": number, "port": server.socket.getsockname()[1]}


def stop(server):
    servers[server].socket.shutdown(socket.SHUT_RDWR)
    servers[server].socket.close()


def send(connection, data):
    connections[connection].send(data.encode("latin-1"))


def read(connection, until=None, count=None):
    it = connections[connection]
    data = it.read(until.encode("latin-1") if until is not None else None, count)
    return {"data": data.decode("latin-1"), "end": it.end if not it.pending else None}


def act(connection, what):
    return getattr(connections[connection], what)()


def close(connection):
    connections.pop(connection).socket.close()


def exchange(connection, count, finish, want=None):
    """Sends `count` bytes and reads as many, or `want`, at the same time; then ends and waits for the end, if told to.
    Hashes both ways."""
    it = connections[connection]
    want = count if want is None else want
    block = bytes(range(256)) * 64
    counter = 0
    sent, received = hashlib.sha256(), hashlib.sha256()
    left, got, ended = count, 0, False
    raw = b""
    it.socket.setblocking(False)
    deadline = time.monotonic() + TIMEOUT_S
    while left > 0 or raw or got < want or (finish and not ended):
        if time.monotonic() > deadline:
            raise TimeoutError("%d of %d sent, %d waiting, %d received, end %s" % (count - left, count, len(raw), got, it.end))
        if not raw and left > 0:
            # All blocks differ, so that a lost or doubled one is detected.
            chunk = (struct.pack("!Q", counter) + block)[: min(left, len(block))]
            counter += 1
            sent.update(chunk)
            left -= len(chunk)
            if it.tls is None:
                raw = chunk
            else:
                it.tls.write(chunk)
                raw = it.outgoing.read()
            if left == 0 and finish and it.tls is not None:
                # After the last byte, in one piece with it.
                try:
                    it.tls.unwrap()
                except ssl.SSLError:
                    pass
                raw += it.outgoing.read()
        readable, writable, _ = select.select([it.socket], [it.socket] if raw else [], [], 1)
        if writable:
            raw = raw[it.socket.send(raw) :]
            if not raw and left == 0 and finish:
                it.fin()
        if readable and not ended:
            data = it.socket.recv(CHUNK)
            if it.tls is None:
                received.update(data)
                got += len(data)
                ended = not data
                it.end = "fin" if ended else None
                continue
            it.incoming.write(data) if data else it.incoming.write_eof()
            try:
                while True:
                    plain = it.tls.read(CHUNK)
                    if not plain:
                        it.end = "close_notify"
                        break
                    received.update(plain)
                    got += len(plain)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                it.end = "close_notify"
            except ssl.SSLEOFError:
                it.end = "fin"
            ended = it.end is not None
    it.socket.setblocking(True)
    it.socket.settimeout(TIMEOUT_S)
    return {"sent": sent.hexdigest(), "received": received.hexdigest(), "count": got, "end": it.end}


floods = {}


def flood(port, count, data):
    """Opens `count` connections that each send the same bytes, and holds them."""
    held = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        sock.sendall(data.encode("latin-1"))
        held.append(sock)
    number = next(numbers)
    floods[number] = held
    return {"flood": number}


def flood_over(flood):
    """Waits until the other side has ended all of them. Returns the number of resets."""
    resets = 0
    for sock in floods.pop(flood):
        try:
            while sock.recv(CHUNK):
                pass
        except (ConnectionResetError, BrokenPipeError):
            resets += 1
        sock.close()
    return {"resets": resets}


OPERATIONS = {
    operation.__name__: operation
    for operation in (
        connect,
        serve,
        stop,
        send,
        read,
        act,
        close,
        exchange,
        flood,
        flood_over,
    )
}


def answer(message):
    number = message.pop("id")
    try:
        say({"id": number, "result": OPERATIONS[message.pop("op")](**message)})
    except Exception as error:  # noqa: BLE001 - whatever it is, the test is to hear it
        say({"id": number, "error": "%s: %s" % (type(error).__name__, error)})


def main():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for line in sys.stdin:
        threading.Thread(target=answer, args=(json.loads(line),), daemon=True).start()


main()
