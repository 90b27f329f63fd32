"""An echo server that talks to many clients at once: every client has its own thread.

    python server.py [--host HOST] [--port PORT]

Run client.py or multi_client.py in a second terminal and watch this one. Each line
begins with the thread that speaks; a client's thread is named after its address.
"""

import argparse
import contextlib
import os
import signal
import socket
import sys
import threading
import time

HOST = "localhost"  # this computer alone; 0.0.0.0 would let the whole network in
PORT = 8080  # free on most computers; ports below 1024 often need special rights
BACKLOG = 1024  # clients that may queue for accept(); no limit on those being served
BUFFER_SIZE = 32768  # bytes that one recv() brings at most
SHOWN = 60  # bytes of them that the log shows, so that nobody can flood the terminal
ACCEPT_TIMEOUT = 0.1  # seconds: how long Ctrl-C may have to wait for accept()
RETRY_PAUSE = 1  # seconds until the next try when the system cannot accept anybody

clients = set()  # the sockets of all clients being served, to be shut down at the end
stopping = threading.Event()  # set once Ctrl-C was pressed
log_lock = threading.Lock()  # all threads share one terminal: one line at a time


def log(message):
    """Print one line that begins with the name of the thread that speaks."""
    with log_lock:
        try:
            print(f"[{threading.current_thread().name}] {message}", flush=True)
        except OSError:
            sys.stdout = None  # nobody gets it any more: print() now does nothing


def handle_client(client_socket):
    """Echo what one client sends until it stops; runs in that client's own thread."""
    try:
        with client_socket:
            # Send all at once; to save packets, the system would hold back the end.
            client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                data = client_socket.recv(BUFFER_SIZE)
                if not data:
                    break  # the client will send no more
                client_socket.sendall(data)
                # Text is only for the eye, after the bytes went back as they came. They
                # need not be text, and !r shows terminal codes instead of obeying them.
                text = data[:SHOWN].decode("utf-8", errors="replace")
                log(f"Received {len(data)} bytes: {text!r}")
        log("Connection closed")
    except OSError as error:
        log(f"Connection lost: {error}")
    finally:
        clients.discard(client_socket)


def create_server_socket(host, port):
    """Return a TCP socket that listens on host and port; exit if there can be none."""
    server_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)  # IPv4, TCP
    try:
        # Without this option, the port of a server that has just ended stays taken for
        # a minute. On Windows it does not, and two servers could share the port.
        if os.name != "nt":
            server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server_socket.bind((host, port))
        server_socket.listen(BACKLOG)
        server_socket.settimeout(ACCEPT_TIMEOUT)
        return server_socket
    except (OSError, OverflowError, TypeError, UnicodeError) as error:
        server_socket.close()
        sys.exit(f"Cannot listen on {host}:{port}: {error} (try another --port/--host)")


def serve(server_socket):
    """Accept clients and start a thread for each, until Ctrl-C is pressed."""
    port = server_socket.getsockname()[1]  # the real one, also where 0 was asked for
    log(f"Server listening on port {port}... (Ctrl-C to stop)")
    while not stopping.is_set():
        try:
            # accept() returns a new socket for each client; server_socket only listens.
            client_socket, addr = server_socket.accept()
        except (socket.timeout, BlockingIOError, ConnectionError):
            continue  # nobody came, or whoever came has left again
        except OSError as error:
            log(f"Cannot accept clients for now: {error}")
            time.sleep(RETRY_PAUSE)
            continue
        log(f"Accepted connection from {addr}")
        clients.add(client_socket)
        client_thread = threading.Thread(target=handle_client, args=(client_socket,))
        client_thread.name = f"{addr[0]}:{addr[1]}"
        try:
            client_thread.start()  # run() would serve one client at a time
        except RuntimeError as error:
            clients.discard(client_socket)
            client_socket.close()
            log(f"Connection from {addr} closed: {error}")


def stop(signal_number, frame):
    """Note that Ctrl-C was pressed; a second Ctrl-C ends the server at once."""
    # To end by an exception would not be safe: it could come just after log_lock was
    # taken, leave it locked, and make every other thread wait for ever.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    stopping.set()


def main():
    """Read the options, serve until Ctrl-C, then let every client's thread end."""
    parser = argparse.ArgumentParser(description="Echo server, one thread per client.")
    parser.add_argument("--host", default=HOST, help="listen here (%(default)s)")
    parser.add_argument("--port", default=PORT, type=int, help="0: any (%(default)s)")
    args = parser.parse_args()
    if hasattr(sys.stdout, "reconfigure"):  # not so in IDLE, which can show all letters
        sys.stdout.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGINT, stop)
    with create_server_socket(args.host, args.port) as server_socket:
        serve(server_socket)
    log(f"Stopping, clients connected: {len(clients)}")
    # Python ends when all threads have ended. A recv() that waits returns empty after a
    # shutdown(), as if the client had said goodbye, so each thread comes to its end.
    for client_socket in clients.copy():
        with contextlib.suppress(OSError):
            client_socket.shutdown(socket.SHUT_RDWR)
            if os.name == "nt":
                client_socket.close()  # on Windows only this wakes a recv()


if __name__ == "__main__":
    main()
