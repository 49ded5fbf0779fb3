"""What Envoy (sidecar) or ztunnel (ambient) does with a pod's connections: accepts what was redirected to it and dials on.

usage: istio-proxy.py PORT UID MARK ROUTES    ROUTES: JSON, "address port" -> {"to": [address, port], "tls": bool}; others are
dialled where they were meant to go. A sidecar is told by its user, ztunnel by the mark of its sockets (0: none). One line,
`ready`, when it listens.
"""
import json, os, socket, ssl, struct, sys, threading

port, uid, mark, routes = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3], 0), json.loads(sys.argv[4])
os.setuid(uid)
SO_MARK, SO_ORIGINAL_DST = 36, 80


def meant(client):
    if client.family == socket.AF_INET6 and not client.getpeername()[0].startswith("::ffff:"):
        raw = client.getsockopt(41, SO_ORIGINAL_DST, 28)
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack("!H", raw[2:4])[0]
    raw = client.getsockopt(0, SO_ORIGINAL_DST, 16)
    return socket.inet_ntop(socket.AF_INET, raw[4:8]), struct.unpack("!H", raw[2:4])[0]


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def serve(client):
    try:
        address, number = meant(client)
        route = routes.get(f"{address} {number}", {})
        to = tuple(route.get("to", (address, number)))
        server = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET)
        if mark:
            server.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        server.settimeout(3)
        server.connect(to)
        if route.get("tls"):
            server = ssl._create_unverified_context().wrap_socket(server)
        server.settimeout(None)
    except OSError as error:
        print(f"failed {error}", flush=True)
        client.close()
        return
    threading.Thread(target=pump, args=(server, client), daemon=True).start()
    pump(client, server)


listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
