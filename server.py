"""A threaded echo server: each client gets a thread of its own.

    python server.py [--host HOST] [--port PORT]

Run client.py or multi_client.py in a second terminal and watch this one. Each line
starts with the name of the thread that printed it: MainThread, which accepts clients,
or a client's thread, named after the client's address. Ctrl-C stops the server.
"""

import argparse
import signal
import socket
import sys
import threading
import time

HOST = "localhost"  # this computer only; 0.0.0.0 would let in the whole network
PORT = 8080  # usually free; ports below 1024 often need special rights

log_lock = threading.Lock()  # lets only one thread print at a time


def handle_client(client_socket):
    """Echo what one client sends until it disconnects; runs in that client's thread."""
    try:
        with client_socket:  # closes it, whatever happens
            while True:
                data = client_socket.recv(32768)  # at most 32768 bytes, often fewer
                if not data:
                    break  # the client has closed its end of the connection
                # 60 characters take at most 240 bytes. Some bytes may not be text.
                text = data[:240].decode(errors="replace")[:60]
                log(f"Received {len(data)} bytes: {text!r}")  # !r escapes line breaks
                client_socket.sendall(data)
        log("Connection closed")
    except OSError as error:
        log(f"Connection lost: {error}")


def serve(server_socket):
    """Accept clients forever, and start a thread for each of them."""
    while True:
        try:
            # accept() returns a new socket for each client; server_socket only listens.
            client_socket, addr = server_socket.accept()
        except OSError as error:  # perhaps too many open files (a socket counts as one)
            log(f"Cannot accept clients for now: {error}")
            time.sleep(1)  # then try again
            continue
        log(f"Accepted connection from {addr}")
        # The thread will call handle_client(client_socket). The comma makes a tuple.
        client_thread = threading.Thread(target=handle_client, args=(client_socket,))
        client_thread.name = f"{addr[0]}:{addr[1]}"
        try:
            client_thread.start()  # returns at once
        except RuntimeError as error:  # perhaps too many threads are running
            log(f"Connection from {addr} closed: {error}")
            client_socket.close()


def create_server_socket(host, port):
    """Return a TCP socket that listens on host and port, or raise an exception."""
    server_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)  # IPv4, TCP
    if sys.platform != "win32":
        # Avoids "Address already in use" when the server is restarted. Windows does not
        # need it, and there it would let two servers share the port.
        server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Turns off Nagle's algorithm (RFC 896), which holds back a piece of an echo until
    # earlier pieces are acknowledged. The sockets that accept() returns inherit this.
    server_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server_socket.bind((host, port))
    server_socket.listen(1024)  # at most this many clients may queue for accept()
    return server_socket


def log(message):
    """Print one line that starts with the name of the current thread."""
    with log_lock:
        try:
            print(f"[{threading.current_thread().name}] {message}", flush=True)
        except OSError:
            pass  # a full disk or a closed pipe must not stop the server


def main():
    """Listen on the port from the command line, and serve clients until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Echo server, a thread per client.")
    parser.add_argument("--host", default=HOST, help="default: %(default)s")
    parser.add_argument("--port", default=PORT, type=int, help="default: %(default)s")
    args = parser.parse_args()
    if hasattr(sys.stdout, "reconfigure"):  # IDLE's stdout lacks this
        # Characters that the terminal cannot show are printed as escapes, such as \xe9.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        server_socket = create_server_socket(args.host, args.port)
    except (OSError, OverflowError, TypeError, ValueError) as error:
        # OverflowError: a wrong port. TypeError (ValueError on PyPy): a wrong host.
        sys.exit(f"Cannot listen on {args.host}:{args.port}: {error}")
    port = server_socket.getsockname()[1]  # the real one, even for --port 0
    log(f"Server listening on port {port}...")
    serve(server_socket)


if __name__ == "__main__":
    # Ctrl-C stops the program at once, without any cleanup. Otherwise, Python would
    # first wait for all threads (and on Windows for another client to connect).
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main()
