"""A threaded echo server: each client is served by a thread of its own.

    python server.py [--host HOST] [--port PORT]

Run client.py or multi_client.py in a second terminal and watch this one. Each line
starts with the name of the thread that printed it: MainThread, which accepts clients,
or the thread of one client, which is named after the client's address.
"""

import argparse
import contextlib
import os
import signal
import socket
import sys
import threading
import time

HOST = "localhost"  # this computer only; 0.0.0.0 would let in the whole network
PORT = 8080  # usually free; ports below 1024 often need special rights
BACKLOG = 1024  # clients that may queue for accept(), if the kernel allows it
BUFFER_SIZE = 32768  # bytes that recv() returns at most; 1024 would be slow
SHOWN = 60  # bytes of a message to print, so that none can fill the terminal
ACCEPT_TIMEOUT = 0.1  # seconds after which accept() gives up, to check `stopping`
RETRY_PAUSE = 1  # seconds from a failed accept() to the next one

clients = set()  # the sockets of all clients being served
stopping = False  # becomes True when Ctrl-C is pressed
log_lock = threading.Lock()  # lets only one thread print at a time


def handle_client(client_socket):
    """Echo what one client sends until it leaves; runs in that client's own thread."""
    try:
        with client_socket:  # closes it at the end, whatever happens
            # Send everything at once: Nagle's algorithm (RFC 896) would hold back the
            # end of a long echo.
            client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                data = client_socket.recv(BUFFER_SIZE)
                if not data:
                    break  # the client has finished sending
                client_socket.sendall(data)
                log(f"Received {len(data)} bytes: {preview(data)}")
        log("Connection closed")
    except OSError as error:
        log(f"Connection lost: {error}")
    finally:
        clients.discard(client_socket)


def serve(server_socket):
    """Accept clients and start a thread for each of them, until Ctrl-C is pressed."""
    while not stopping:
        try:
            # accept() returns a new socket for each client; server_socket only listens.
            client_socket, addr = server_socket.accept()
            log(f"Accepted connection from {addr}")
            clients.add(client_socket)
            client_thread = threading.Thread(
                target=handle_client,  # the function that the thread will call
                args=(client_socket,),  # its arguments; the comma makes a tuple
                name=f"{addr[0]}:{addr[1]}",
            )
            client_thread.start()  # returns at once; run() would block
        except (socket.timeout, BlockingIOError, ConnectionError):
            pass  # no client connected in time, or it has already left
        except OSError as error:  # accept() failed: perhaps too many files are open
            log(f"Cannot accept clients for now: {error}")
            time.sleep(RETRY_PAUSE)
        except RuntimeError as error:  # start() failed: perhaps too many threads run
            log(f"Connection from {addr} closed: {error}")
            clients.discard(client_socket)
            client_socket.close()


def create_server_socket(host, port):
    """Return a TCP socket that listens on host and port; exit if that is impossible."""
    server_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)  # IPv4, TCP
    try:
        if os.name != "nt":
            # Without this, the port would stay in use for up to a minute after a Ctrl-C
            # with clients connected. Windows does not need it, and there it would let
            # two servers share the port.
            server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server_socket.bind((host, port))
        server_socket.listen(BACKLOG)
        server_socket.settimeout(ACCEPT_TIMEOUT)
        return server_socket
    except (OSError, OverflowError, TypeError, UnicodeError) as error:
        server_socket.close()
        sys.exit(f"Cannot listen on {host}:{port}: {error} (use another --port/--host)")


def preview(data):
    """Return the first bytes of data as text in quotes that is safe to print."""
    # The bytes may not be text. repr() escapes line breaks and control codes, which
    # could otherwise forge a line of the log or garble the terminal.
    text = data[:SHOWN].decode("utf-8", errors="replace")
    return repr(text)


def log(message):
    """Print one line that starts with the name of the current thread."""
    with log_lock:
        try:
            print(f"[{threading.current_thread().name}] {message}", flush=True)
        except OSError:
            # A closed pipe or a full disk. With None, print() does nothing.
            sys.stdout = None


def stop(signal_number, frame):
    """Handle Ctrl-C: make serve() return; a second Ctrl-C kills the server."""
    # A KeyboardInterrupt could be raised anywhere, even just after log() has taken its
    # lock. The lock would then stay locked and block every thread that prints.
    global stopping
    stopping = True
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def disconnect_clients():
    """Make every client's thread finish; the program exits with the last of them."""
    for client_socket in clients.copy():  # the threads discard theirs meanwhile
        with contextlib.suppress(OSError):  # this client may just have left
            # A recv() that blocks in the client's thread now returns b"".
            client_socket.shutdown(socket.SHUT_RDWR)
            if os.name == "nt":
                client_socket.close()  # on Windows, only this wakes a blocked recv()


def main():
    """Serve clients until Ctrl-C is pressed, then disconnect them."""
    parser = argparse.ArgumentParser(
        description="Echo server with a thread per client.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default=HOST, help="address to listen on")
    parser.add_argument("--port", default=PORT, type=int, help="0 for any free port")
    args = parser.parse_args()
    if hasattr(sys.stdout, "reconfigure"):  # IDLE has none, and can show any text
        # Letters that the terminal lacks are printed as escapes, such as \xe9.
        sys.stdout.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGINT, stop)
    with create_server_socket(args.host, args.port) as server_socket:
        port = server_socket.getsockname()[1]  # the real one, even for --port 0
        log(f"Server listening on port {port}... (Ctrl-C to stop)")
        serve(server_socket)
    log(f"Stopping, clients connected: {len(clients)}")
    disconnect_clients()


if __name__ == "__main__":
    main()
