"""An echo server that talks to many clients at once: every client has its own thread.

    python server.py [--host HOST] [--port PORT]

Run client.py or multi_client.py in a second terminal and watch this one. Each line
begins with the name of the thread that speaks: the main thread accepts the clients,
and each client's thread is named after that client's address. Ctrl-C stops the server.
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
BACKLOG = 1024  # clients that may queue for accept(); no limit on clients being served
BUFFER_SIZE = 32768  # bytes for one recv(): half is slower in bulk, double is no faster
ACCEPT_TIMEOUT = 1  # seconds: on Windows, Ctrl-C has to wait until accept() returns
RETRY_PAUSE = 0.1  # seconds: where accept() fails, trying without rest burns the CPU

clients = set()  # the sockets being served, so that Ctrl-C can end them
log_lock = threading.Lock()  # all threads share one terminal: one line at a time


def log(message):
    """Print one whole line that begins with the name of the thread that speaks."""
    with log_lock:
        try:
            print(f"[{threading.current_thread().name}] {message}", flush=True)
        except OSError:  # nobody reads any more (`| head`): go on, print to nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def handle_client(client_socket):
    """Echo what one client sends until it stops; runs in that client's own thread."""
    try:
        with client_socket:  # closes it, whatever happens
            # Send at once: else the system holds back the end of a long echo for 40 ms.
            client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                data = client_socket.recv(BUFFER_SIZE)  # waits until something comes
                if not data:
                    break  # empty means that the client will send no more
                # Text only for the eye: bytes that are no text must not stop the echo,
                # and !r shows line breaks and terminal codes instead of obeying them.
                log(f"Received: {data.decode('utf-8', errors='replace')!r}")
                client_socket.sendall(data)  # waits while the client is slow to read
        log("Connection closed")
    except OSError as error:  # the client reset the connection, or vanished
        log(f"Connection lost: {error}")
    finally:
        clients.discard(client_socket)


def create_server_socket(host, port):
    """Return a TCP socket that listens on host and port; exit if there can be none."""
    server_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)  # IPv4, TCP
    try:
        if os.name == "posix":  # restart at once, though old connections still linger;
            # on Windows the same option would let two servers take the same port
            server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server_socket.bind((host, port))
        server_socket.listen(BACKLOG)
        server_socket.settimeout(ACCEPT_TIMEOUT)  # for accept(); clients have no limit
        return server_socket
    except (OSError, OverflowError, TypeError) as error:  # taken, too high, no name
        server_socket.close()
        advice = "try another --port (0 takes any free one) or --host"
        sys.exit(f"Cannot listen on {host}:{port}: {error} ({advice})")


def serve(server_socket):
    """Accept clients for ever and start a thread for each."""
    port = server_socket.getsockname()[1]  # the real one, also where 0 was asked for
    log(f"Server listening on port {port}... (Ctrl-C to stop)")
    told = False
    while True:
        try:
            client_socket, addr = server_socket.accept()
            told = False
        except socket.timeout:  # noqa: UP041 (nobody came; 3.8 has no other name)
            continue
        except OSError as error:  # such as no file descriptor left: wait for one
            if not told:
                log(f"Cannot accept clients for now: {error}")
            told = True
            time.sleep(RETRY_PAUSE)
            continue
        log(f"Accepted connection from {addr}")
        clients.add(client_socket)  # before the start: Ctrl-C must not miss it
        client_thread = threading.Thread(
            target=handle_client, args=(client_socket,), name=f"{addr[0]}:{addr[1]}"
        )
        try:
            client_thread.start()  # run() instead would serve one client at a time
        except RuntimeError as error:  # the system has no thread left
            clients.discard(client_socket)
            client_socket.close()
            log(f"Connection from {addr} closed: {error}")


def main():
    """Read the options, serve until Ctrl-C, then let every client's thread end."""
    parser = argparse.ArgumentParser(description="Echo server, one thread per client.")
    parser.add_argument("--host", default=HOST, help="listen here (%(default)s)")
    parser.add_argument("--port", default=PORT, type=int, help="0: any (%(default)s)")
    args = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # for terminals without é or 你
    server_socket = create_server_socket(args.host, args.port)
    try:
        serve(server_socket)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends all at once
        log(f"Stopping, {len(clients)} clients connected")
        server_socket.close()
        # Threads take their sockets out of the set meanwhile. add, discard and copy are
        # one step each, so no lock is needed; a loop over the set itself would break.
        for client_socket in clients.copy():
            with contextlib.suppress(OSError):  # closed already
                client_socket.shutdown(socket.SHUT_RDWR)  # ends its recv() or sendall()


if __name__ == "__main__":
    main()
