/** Both sides of a connection whose segments are made by hand, in Python. */

/** A server that says how each connection ended, `reset`, `end` or `silence`, and what reached it. It answers the first bytes. */
export const RECORDER = `
import socket, threading
def serve(s):
    got = b""
    s.settimeout(9)
    try:
        while True:
            b = s.recv(65536)
            if not b: how = "end"; break
            if not got: s.sendall(b"answer")
            got += b
    except ConnectionResetError: how = "reset"
    except OSError: how = "silence"
    print(how, len(got), "evil" if b"evil" in got else "-", flush=True)
l = socket.create_server(("::", 443), family=socket.AF_INET6, dualstack_ipv6=True)
def banner():
    b = socket.create_server(("::", 22), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        s = b.accept()[0]; s.sendall(b"SSH-2.0-OpenSSH_9.2\\r\\n"); threading.Thread(target=serve, args=(s,)).start()
threading.Thread(target=banner, daemon=True).start()
print("ready", flush=True)
while True: threading.Thread(target=serve, args=(l.accept()[0],)).start()
`;

/** `hello(name)`, a connected socket `s`, and `send(offset, bytes, ...)`, which puts a segment on the wire beside the kernel's. */
export const PRELUDE = `
import socket, struct, sys, time
host, port = sys.argv[1], int(sys.argv[2])
v6 = ":" in host
eth = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); eth.bind(("eth0", 0)); eth.settimeout(3)
def records(body, size=16384): return b"".join(b"\\x16\\x03\\x01" + struct.pack("!H", len(body[i:i+size])) + body[i:i+size] for i in range(0, len(body), size))
def hello(name, pad=0, size=16384):
    name = name.encode()
    ext = struct.pack("!HHHBH", 0, len(name) + 5, len(name) + 3, 0, len(name)) + name
    ext += struct.pack("!HHBHH", 43, 5, 4, 0x0304, 0x0303) + struct.pack("!HHHH", 10, 4, 2, 29) + struct.pack("!HHHHH", 13, 6, 4, 0x0403, 0x0804)
    if pad: ext = struct.pack("!HH", 21, pad) + bytes(pad) + ext
    body = b"\\x03\\x03" + bytes(range(32)) + b"\\0" + struct.pack("!HHH", 4, 0x1301, 0xc02f) + b"\\x01\\0" + struct.pack("!H", len(ext)) + ext
    return records(b"\\x01" + struct.pack("!I", len(body))[1:] + body, size)
GOOD, EVIL = hello("web.example.com"), hello("evil.exampl.com")
assert len(GOOD) == len(EVIL)
s = socket.create_connection((host, port), timeout=3); s.settimeout(8)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
own = s.getsockname()
while True: # the third packet of the handshake has every number
    f = eth.recv(65535)
    if struct.unpack("!H", f[12:14])[0] not in (0x0800, 0x86dd): continue
    at = 14 + (40 if v6 else (f[14] & 15) * 4)
    if f[at-0 : at+2] == struct.pack("!H", own[1]) and f[at+13] == 16: break
mac, seq, ack = f[:14], struct.unpack("!I", f[at+4:at+8])[0], struct.unpack("!I", f[at+8:at+12])[0]
def csum(b):
    b = b + bytes(len(b) % 2); x = sum(struct.unpack("!%dH" % (len(b) // 2), b))
    while x >> 16: x = (x & 65535) + (x >> 16)
    return 65535 - x
fam = socket.AF_INET6 if v6 else socket.AF_INET
src, dst = socket.inet_pton(fam, own[0]), socket.inet_pton(fam, host)
def ip(body, ttl, frag=0, proto=6, ident=7):
    if v6: return mac + struct.pack("!IHBB", 6 << 28, len(body), proto, ttl) + src + dst + body
    h = struct.pack("!BBHHHBBH4s4s", 69, 0, 20 + len(body), ident, frag, ttl, proto, 0, src, dst)
    return mac + h[:10] + struct.pack("!H", csum(h)) + h[12:] + body
def segment(offset, data, flags=24, options=b"", bad=False):
    t = struct.pack("!HHIIBBHHH", own[1], port, (seq + offset) & 0xffffffff, ack, (20 + len(options)) << 2, flags, 500, 0, 0) + options + data
    pseudo = src + dst + (struct.pack("!II", len(t), 6) if v6 else struct.pack("!HH", 6, len(t)))
    c = csum(pseudo + t) ^ (0x5555 if bad else 0)
    return t[:16] + struct.pack("!H", c) + t[18:]
def send(offset, data, ttl=64, **more): eth.send(ip(segment(offset, data, **more), ttl)); time.sleep(0.002)
def fragments(offset, data):
    t = segment(offset, data)
    for i in range(0, len(t), 64):
        part, more = t[i:i+64], i + 64 < len(t)
        if v6: eth.send(ip(struct.pack("!BBHI", 6, 0, i | more, 99) + part, 64, proto=44))
        else: eth.send(ip(part, 64, (i >> 3) | (0x2000 if more else 0)))
    time.sleep(0.002)
def answered(timeout=2): # is there an answer on the wire? (the kernel does not know what we have sent)
    until = time.time() + timeout
    while time.time() < until:
        try: f = eth.recv(65535)
        except OSError: break
        if f[:6] == mac[6:12] and b"answer" in f: return "answered"
        if f[:6] == mac[6:12] and len(f) >= at + 14 and f[at+2:at+4] == struct.pack("!H", own[1]) and f[at+13] & 4: return "reset"
    return "silence"
def refused(): # whatever the server has said to the first bytes
    seen = answered()
    while seen == "answered": seen = answered()
    return seen
def last():
    try:
        while s.recv(9): pass
        print("closed")
    except OSError as error: print(type(error).__name__)
def end():
    try: print("answered" if s.recv(9) else "closed")
    except OSError as error: print(type(error).__name__)
`;

/** `raw(n, ack, ...)` sends a segment of a connection that the pod's kernel knows nothing of; `begin(isn)` makes one. */
export const RAW = `
import subprocess
subprocess.run(["ip6tables-nft" if v6 else "iptables-nft", "-A", "OUTPUT", "-p", "tcp", "--tcp-flags", "RST", "RST", "-j", "DROP"], check=True)
MD5 = b"\\x13\\x12" + bytes(16) + b"\\1\\1" # a server that has no key for it drops the segment
p = own[1] ^ 1
SYN, RST, ACK = 2, 4, 16
def raw(n, a, data=b"", flags=24, options=b"", bad=False, ext=False):
    t = struct.pack("!HHIIBBHHH", p, port, n & 0xffffffff, a & 0xffffffff, (20 + len(options)) << 2, flags, 64000, 0, 0) + options + data
    pseudo = src + dst + (struct.pack("!II", len(t), 6) if v6 else struct.pack("!HH", 6, len(t)))
    t = t[:16] + struct.pack("!H", csum(pseudo + t) ^ (0x5555 if bad else 0)) + t[18:]
    eth.send(ip(b"\\6\\0\\1\\4\\0\\0\\0\\0" + t, 64, proto=60) if ext else ip(t, 64)); time.sleep(0.002)
def accepted(): # the server's sequence number
    until = time.time() + 3
    while time.time() < until:
        f = eth.recv(65535)
        if f[:6] == mac[6:12] and f[at+2:at+4] == struct.pack("!H", p) and f[at+13] == SYN | ACK: return struct.unpack("!I", f[at+4:at+8])[0] + 1
def begin(isn):
    raw(isn, 0, flags=SYN); q = accepted(); raw(isn + 1, q, flags=ACK); return q
isn = 70000
first = isn + 1
`;
