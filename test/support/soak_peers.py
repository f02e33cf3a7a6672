"""Both ends of the soak: clients that do everything that clients do to connections, and backends that check every byte.

Sockets and TLS are Python's. Takes one JSON object a line, answers each with one line. Clients and backends know what the other
will send, from a header that begins each connection, so each byte and each end can be judged on both sides.
"""

import json
import random
import socket
import ssl
import struct
import sys
import threading
import time
import zlib

TIMEOUT_S = 30
CHUNK = 65536
BLOCK_BYTES = 1 << 20
BLOCK = random.Random(1).randbytes(BLOCK_BYTES)
TWICE = BLOCK + BLOCK
RESET = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)
CUT = "reset"

lock = threading.Lock()
counts = {}
wrong = []
# Connections that were cut although neither end wanted it: the log must have the reason.
cuts = []
backends = {}
numbers = iter(range(1, 1 << 62))
going = threading.Event()
underway = 0


def count(kind):
    with lock:
        counts[kind] = counts.get(kind, 0) + 1


def violation(text):
    with lock:
        wrong.append(text)


def data_at(seed, offset, length):
    at = (seed + offset) % BLOCK_BYTES
    return TWICE[at : at + length]


class Cut(Exception):
    """The connection was reset."""


class Truncated(Exception):
    """An end, orderly or a bare FIN under TLS, before the expected bytes have come."""


class Secure:
    """TLS on a socket, over memory: the ssl module's own sockets report a reset as an end without close_notify."""

    def __init__(self, sock, context, **how):
        self.socket = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **how)
        self.drive(self.tls.do_handshake)

    def drive(self, step, *arguments):
        while True:
            try:
                return step(*arguments)
            except ssl.SSLWantReadError:
                self.flush()
                data = self.socket.recv(CHUNK)
                if not data:
                    raise Truncated("FIN without close_notify")
                self.incoming.write(data)
            finally:
                self.flush()

    def flush(self):
        data = self.outgoing.read()
        if data:
            self.socket.sendall(data)

    def recv(self, size):
        try:
            return self.drive(self.tls.read, size)
        except ssl.SSLZeroReturnError:
            return b""

    def sendall(self, data):
        self.drive(self.tls.write, data)

    def close_notify(self):
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        self.flush()
        self.socket.shutdown(socket.SHUT_WR)

    def setsockopt(self, *arguments):
        self.socket.setsockopt(*arguments)

    def close(self):
        self.socket.close()


def receive(sock, size=CHUNK):
    """Some bytes; none at an orderly end."""
    try:
        return sock.recv(size)
    except (*RESET, ssl.SSLError) as error:
        raise Cut from error


def send(sock, data):
    try:
        sock.sendall(data)
    except (*RESET, ssl.SSLError) as error:
        raise Cut from error


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_pattern(sock, seed, total, pause=None):
    """Reads and compares `total` bytes of the pattern; their CRC."""
    got, crc = 0, 0
    while got < total:
        chunk = receive(sock, min(CHUNK if pause is None else 16384, total - got))
        if not chunk:
            raise Truncated(f"after {got} of {total} bytes")
        if chunk != data_at(seed, got, len(chunk)):
            raise ValueError(f"other bytes than were sent, from {got} of {total}")
        crc = zlib.crc32(chunk, crc)
        got += len(chunk)
        if pause is not None:
            time.sleep(pause)
    return crc


def send_pattern(sock, seed, total):
    crc = 0
    for at in range(0, total, CHUNK):
        chunk = data_at(seed, at, min(CHUNK, total - at))
        send(sock, chunk)
        crc = zlib.crc32(chunk, crc)
    return crc


def end_sending(sock):
    """FIN, under TLS with close_notify."""
    try:
        if isinstance(sock, Secure):
            sock.close_notify()
        else:
            sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass


# ---------------------------------------------------------------------- backends


class Backend:
    def __init__(self, host, proxy, cert):
        self.host, self.proxy, self.cert = host, proxy, cert
        # Sockets that a kill has ended and their threads have not closed yet.
        self.doomed = set()
        self.port = 0
        self.open = set()
        self.start()

    def start(self):
        self.listening = socket.socket()
        self.listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listening.bind((self.host, self.port))
        self.port = self.listening.getsockname()[1]
        self.listening.listen(1024)
        threading.Thread(target=self.accept, args=(self.listening,), daemon=True).start()

    def kill(self):
        """Like the death of a process: it stops listening and everything is reset."""
        # A thread that waits in accept() would keep the socket listening.
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        with lock:
            doomed = list(self.open)
        for sock in doomed:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # Wakes the thread that reads it, which closes it.
                self.doomed.add(sock)
                sock.shutdown(socket.SHUT_RD)
            except OSError:
                pass

    def accept(self, listening):
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        sock.settimeout(TIMEOUT_S)
        raw = sock
        what = "?"
        with lock:
            self.open.add(raw)
        try:
            if self.proxy:
                head = self.exactly(raw, 16)
                if head[:12] != b"\r\n\r\n\0\r\nQUIT\n":
                    raise ValueError(f"no PROXY header: {head!r}")
                self.exactly(raw, struct.unpack(">H", head[14:16])[0])
            if self.cert is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*self.cert)
                sock = Secure(raw, context, server_side=True)
            line = b""
            while not line.endswith(b"\n"):
                byte = receive(sock, 1)
                if not byte:
                    if line:
                        raise Truncated("in the header")
                    return count("backend: nothing said")
                line += byte
            what, up, down, mode, seed = line.decode().split()
            self.answer(sock, int(up), int(down), mode, int(seed))
            count("backend: answered")
        except Cut:
            count("backend: reset")
        except Truncated as error:
            # The test's own kill ends the reading too.
            if raw not in self.doomed:
                violation(f"backend: connection {what} ended {error}")
        except (ssl.SSLError, ConnectionError):
            count("backend: no handshake")
        except (OSError, TimeoutError) as error:
            if raw not in self.doomed:
                count(f"backend: {error}")
        except ValueError as error:
            violation(f"backend: connection {what}: {error}")
        finally:
            with lock:
                self.open.discard(raw)
            self.doomed.discard(raw)
            sock.close()

    @staticmethod
    def exactly(sock, size):
        data = b""
        while len(data) < size:
            more = receive(sock, size - len(data))
            if not more:
                raise Truncated("in the PROXY header") if data else Cut
            data += more
        return data

    def answer(self, sock, up, down, mode, seed):
        crc = read_pattern(sock, seed, up, 0.005 if mode == "slow_backend" else None)
        if mode == "half":
            more = receive(sock)
            if more:
                raise ValueError(f"{len(more)} bytes behind the last")
        if mode == "backend_reset":
            send_pattern(sock, seed + 1, down // 2)
            reset(sock)
            return
        send_pattern(sock, seed + 1, down)
        send(sock, struct.pack(">I", crc))
        end_sending(sock)
        while receive(sock):
            pass


# ---------------------------------------------------------------------- clients


class Clients:
    def __init__(self, given):
        self.listeners = given["listeners"]
        self.extra = 0
        self.threads = [
            threading.Thread(target=self.run, args=(random.Random(given["seed"] * 1000 + i),), daemon=True)
            for i in range(given["threads"])
        ]

    def run(self, rng):
        while going.is_set():
            choice = rng.choice(self.listeners)
            if self.extra and rng.random() < 0.1:
                choice = {"port": self.extra, "kind": "plain", "name": "extra"}
            try:
                self.one(rng, choice)
            except Exception as error:  # the soak must say so, whatever it is
                violation(f"client on {choice['name']}: {type(error).__name__} {error}")

    def one(self, rng, listener):
        with lock:
            number = next(numbers)
        kind = listener["kind"]
        # Every connection has its own source address, which identifies its line.
        source = f"127.{64 + (number >> 16) % 64}.{number >> 8 & 255}.{number & 255}"
        if kind == "limited":
            source = "127.9.9.9"
        modes = ["normal", "normal", "half", "slow_client", "slow_backend", "client_reset", "backend_reset"]
        mode = rng.choice(modes)
        large = rng.random() < 0.15
        up = rng.randrange(0, 400_000 if large else 3000)
        down = rng.randrange(0, 800_000 if large else 5000)
        if mode == "slow_client":
            down = rng.randrange(200_000, 800_000)
        if mode == "client_reset":
            up = max(up, 2000)
        seed = rng.randrange(BLOCK_BYTES)
        sock = socket.socket()
        sock.settimeout(TIMEOUT_S)
        address = own = None
        try:
            if mode == "slow_client":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            sock.bind((source, 0))
            # A reset may come before connect() has returned.
            address = own = f"{source}:{sock.getsockname()[1]}"
            sock.connect(("127.0.0.1", listener["port"]))
            if kind == "proxy":
                address = f"198.18.{number >> 8 & 255}.{number & 255}:{10000 + (number >> 16)}"
                host, port = address.split(":")
                send(sock, f"PROXY TCP4 {host} 192.0.2.1 {port} 443\r\n".encode())
            if kind == "tls":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                context.maximum_version = rng.choice([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
                sock = Secure(sock, context, server_hostname="a.example")
            self.exchange(sock, f"{number} {up} {down} {mode} {seed}\n".encode(), up, down, mode, seed, rng)
            count(f"{listener['name']}: {mode}")
        except (Cut, *RESET, ssl.SSLError) as error:
            if mode == "backend_reset":
                return count(f"{listener['name']}: {mode}")
            self.cut(listener, mode, [address, own])
        except ConnectionRefusedError:
            if listener["name"] != "extra":
                violation(f"client {number} on {listener['name']}: refused")
        except Truncated as error:
            violation(f"client {number} ({address}) on {listener['name']}, {mode}: ended {error}")
        except ValueError as error:
            violation(f"client {number} ({address}) on {listener['name']}, {mode}: {error}")
        except TimeoutError:
            violation(f"client {number} ({address}) on {listener['name']}, {mode}: nothing for {TIMEOUT_S} s")
        finally:
            sock.close()

    @staticmethod
    def cut(listener, mode, addresses):
        count(f"{listener['name']}: cut")
        with lock:
            cuts.append([listener["name"], mode, addresses])

    @staticmethod
    def exchange(sock, header, up, down, mode, seed, rng):
        send(sock, header)
        if mode == "client_reset":
            send_pattern(sock, seed, rng.randrange(1, up))
            reset(sock)
            return
        # The backend reads all before it answers, so this cannot lock up.
        crc = send_pattern(sock, seed, up)
        if mode == "half":
            end_sending(sock)
        read_pattern(sock, seed + 1, down, 0.004 if mode == "slow_client" else None)
        trailer = b""
        while len(trailer) < 4:
            more = receive(sock)
            if not more:
                raise Truncated("before the checksum")
            trailer += more
        if trailer != struct.pack(">I", crc):
            raise ValueError("the backend has read something else than was sent")
        if receive(sock):
            raise ValueError("bytes behind the last")


# ---------------------------------------------------------------------- the soak's side


def held(port, source, number):
    """The number of served connections, of this many at once from one address; each requests one answer."""
    socks, served = [], 0
    for _ in range(number):
        sock = socket.socket()
        sock.settimeout(TIMEOUT_S)
        socks.append(sock)
        try:
            sock.bind((source, 0))
            sock.connect(("127.0.0.1", port))
            send(sock, b"0 0 0 normal 0\n")
            served += len(receive(sock)) == 4
        except (Cut, *RESET):
            pass
    for sock in socks:
        sock.close()
    return served


def main():
    clients = None
    for line in sys.stdin:
        given = json.loads(line)
        op, result = given["op"], None
        if op == "backend":
            backend = Backend("127.0.0.1", given["proxy"], given.get("cert"))
            backends[given["name"]] = backend
            result = backend.port
        elif op == "kill":
            backends[given["name"]].kill()
        elif op == "revive":
            backends[given["name"]].start()
        elif op == "begin":
            clients = Clients(given)
            going.set()
            for thread in clients.threads:
                thread.start()
        elif op == "extra":
            clients.extra = given["port"]
        elif op == "end":
            going.clear()
            for thread in clients.threads:
                thread.join()
            with lock:
                result = {"counts": dict(counts), "wrong": list(wrong), "cuts": list(cuts)}
                counts.clear()
                wrong.clear()
                cuts.clear()
        elif op == "held":
            result = held(given["port"], given["source"], given["number"])
        print(json.dumps({"result": result}), flush=True)


threading.stack_size(256 * 1024)
main()
