"""TCP and unix sockets by Python's own socket module, for tests that need a peer that is not Bun.

Takes one JSON object a line, {"id", "op", ...}, and answers each with one line. Every operation has a thread of its own, so
a reader that waits keeps nobody from writing.
"""

import json
import os
import select
import selectors
import socket
import struct
import sys
import threading
import time
import zlib

TIMEOUT_S = 25
BLOCK = os.urandom(1 << 20)

output = threading.Lock()
sockets = {}
numbers = iter(range(1, 1 << 62))


def keep(sock):
    sock.settimeout(TIMEOUT_S)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    number = next(numbers)
    sockets[number] = sock
    return number


def parse(address):
    if address.startswith("unix:@"):
        return socket.AF_UNIX, "\0" + address[6:]
    if address.startswith("unix:"):
        return socket.AF_UNIX, address[5:]
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, int(port))


def text_of(name):
    if isinstance(name, tuple):
        return ("[%s]:%d" if ":" in name[0] else "%s:%d") % name[:2]
    return "unix"


def make(address, rcvbuf, maxseg=0):
    family, name = parse(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    if rcvbuf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    if maxseg:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, maxseg)
    return sock, name


def listen(address, rcvbuf=0, backlog=1024):
    sock, name = make(address, rcvbuf)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(name)
    sock.listen(backlog)
    return {"socket": keep(sock), "address": text_of(sock.getsockname())}


def accept(on):
    sock, peer = sockets[on].accept()
    return {"socket": keep(sock), "peer": text_of(peer)}


def connect(address, rcvbuf=0, maxseg=0, source=None):
    sock, name = make(address, rcvbuf, maxseg)
    if source:
        sock.bind((source, 0))
    sock.settimeout(TIMEOUT_S)
    sock.connect(name)
    return {"socket": keep(sock), "address": text_of(sock.getsockname())}


# ---------------------------------------------------------------------- bytes


def ended(error):
    return "reset" if isinstance(error, (ConnectionResetError, BrokenPipeError)) else type(error).__name__


def send(on, text):
    sockets[on].sendall(text.encode("latin-1"))


def send_stream(on, count, finish=False):
    """Sends this many bytes, all blocks different; returns their checksum, and how it ended if it failed."""
    sock, left, crc, number, end = sockets[on], count, 0, 0, None
    try:
        while left > 0:
            block = (struct.pack("!Q", number) + BLOCK[8:])[:left]
            number += 1
            crc = zlib.crc32(block, crc)
            sock.sendall(block)
            left -= len(block)
        if finish:
            sock.shutdown(1)
    except OSError as error:
        end = ended(error)
    return {"sent": count - left, "crc": crc, "end": end}


def fill(on, quiet_ms):
    """Sends until no bytes have moved for this long; returns the number of bytes."""
    sock, sent, crc = sockets[on], 0, 0
    sock.setblocking(False)
    end = None
    while True:
        writable = select.select([], [sock], [], quiet_ms / 1000)[1]
        if not writable:
            break
        try:
            sent += sock.send(BLOCK[: 1 << 16])
        except BlockingIOError:
            continue
        except OSError as error:
            end = ended(error)
            break
    sock.settimeout(TIMEOUT_S)
    return {"sent": sent, "end": end}


def read(on, count):
    """This many bytes, fewer if the end comes before: "fin" or "reset"."""
    sock, data, end = sockets[on], b"", None
    try:
        while len(data) < count:
            chunk = sock.recv(count - len(data))
            if not chunk:
                end = "fin"
                break
            data += chunk
    except OSError as error:
        end = ended(error)
    return {"text": data.decode("latin-1"), "end": end}


def drain(on, chunk=1 << 18, every=0, pause_ms=0):
    """Reads to the end; with `every`, pauses after each such number of bytes."""
    sock, count, crc, next_pause = sockets[on], 0, 0, every
    buffer = bytearray(chunk)
    view = memoryview(buffer)
    started = time.monotonic()
    try:
        while True:
            got = sock.recv_into(buffer)
            if got == 0:
                end = "fin"
                break
            count += got
            crc = zlib.crc32(view[:got], crc)
            if every and count >= next_pause:
                next_pause += every
                time.sleep(pause_ms / 1000)
    except OSError as error:
        end = ended(error)
    return {"count": count, "crc": crc, "end": end, "seconds": time.monotonic() - started}


def measure(on, skip_ms, ms):
    """Reads for a while and then counts the bytes of another while: bytes, and the real time in seconds."""
    sock = sockets[on]
    start = time.monotonic()
    while time.monotonic() < start + skip_ms / 1000:
        sock.recv(1 << 18)
    start, count = time.monotonic(), 0
    while time.monotonic() < start + ms / 1000:
        count += len(sock.recv(1 << 18))
    return {"count": count, "seconds": time.monotonic() - start}


def segments(on):
    """The number of received segments, once everything sent is acknowledged: tcpi_segs_in, tcpi_unacked (linux/tcp.h)."""
    while True:
        info = sockets[on].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
        if struct.unpack_from("I", info, 24)[0] == 0:
            return {"count": struct.unpack_from("I", info, 140)[0]}
        time.sleep(0.002)


# ---------------------------------------------------------------------- ends


def finish(on):
    sockets[on].shutdown(1)


def reset(on):
    sock = sockets.pop(on)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def close(on):
    sockets.pop(on).close()


def hung_up(on, ms):
    """Waits until the connection is over in both directions: "reset", "closed", or None if it is not after this time."""
    poll = select.poll()
    poll.register(sockets[on], 0)
    if not poll.poll(ms):
        return {"how": None}
    error = sockets[on].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return {"how": "reset" if error else "closed"}


# ---------------------------------------------------------------------- many at once


def push_many(address, connections, quiet_ms):
    """Opens many connections and sends on all of them until no bytes have moved for this long."""
    family, name = parse(address)
    group = []
    for _ in range(connections):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        sock.settimeout(TIMEOUT_S)
        sock.connect(name)
        group.append(sock)
    number = next(numbers)
    sockets[number] = group
    return {"group": number, "sent": fill_many(number, quiet_ms)["sent"]}


def connect_many(address, connections):
    family, name = parse(address)
    group = []
    for _ in range(connections):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(TIMEOUT_S)
        sock.connect(name)
        group.append(sock)
    number = next(numbers)
    sockets[number] = group
    return {"group": number}


def fill_many(group, quiet_ms):
    """Sends on all connections of a group until no bytes have moved for this long; returns the bytes of each."""
    selector = selectors.DefaultSelector()
    sent = [0] * len(sockets[group])
    for i, sock in enumerate(sockets[group]):
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_WRITE, i)
    while True:
        ready = selector.select(quiet_ms / 1000)
        if not ready:
            break
        for key, _ in ready:
            try:
                sent[key.data] += key.fileobj.send(BLOCK[: 1 << 16])
            except BlockingIOError:
                pass
    return {"sent": sent}


def finish_many(group):
    for sock in sockets[group]:
        sock.setblocking(True)
        sock.shutdown(1)


def close_many(group):
    for sock in sockets.pop(group):
        sock.close()


def accept_many(on, count):
    group = []
    for _ in range(count):
        group.append(sockets[on].accept()[0])
    number = next(numbers)
    sockets[number] = group
    return {"group": number}


def drain_many(group):
    """Reads all connections of a group to their ends: bytes of each, and how each ended."""
    selector = selectors.DefaultSelector()
    counts, ends = [0] * len(sockets[group]), [None] * len(sockets[group])
    for i, sock in enumerate(sockets[group]):
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, i)
    open_count = len(counts)
    deadline = time.monotonic() + TIMEOUT_S
    while open_count > 0 and time.monotonic() < deadline:
        for key, _ in selector.select(1):
            try:
                chunk = key.fileobj.recv(1 << 18)
            except BlockingIOError:
                continue
            except OSError as error:
                chunk, ends[key.data] = b"", ended(error)
            counts[key.data] += len(chunk)
            if not chunk:
                ends[key.data] = ends[key.data] or "fin"
                selector.unregister(key.fileobj)
                open_count -= 1
    return {"counts": counts, "ends": ends}


OPERATIONS = {
    name: globals()[name]
    for name in (
        "listen accept connect send send_stream fill read drain measure segments finish reset close hung_up "
        "push_many connect_many fill_many finish_many close_many accept_many drain_many"
    ).split()
}


def run(request):
    number = request.pop("id")
    try:
        answer = {"id": number, "result": OPERATIONS[request.pop("op")](**request)}
    except Exception as error:
        answer = {"id": number, "error": "%s: %s" % (type(error).__name__, error)}
    with output:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


for line in sys.stdin:
    threading.Thread(target=run, args=(json.loads(line),), daemon=True).start()
os._exit(0)
