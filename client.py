"""An echo client: it sends one message to server.py and prints what comes back.

    python client.py [--host HOST] [--port PORT] [--timeout SECONDS] [MESSAGE]

Start server.py in another terminal first. You will see: Server responded: '...'
"""

import argparse
import signal
import socket
import sys
from os import fsencode

HOST = "localhost"  # where server.py listens if it is not told otherwise
PORT = 8080  # likewise
TIMEOUT = 10  # seconds of silence after which the server counts as lost


def receive_exactly(client_socket, size):
    """Return the next `size` bytes; ConnectionError if the server closes earlier."""
    received = b""
    # TCP keeps no messages: one recv() may bring a part of what one sendall() sent.
    while len(received) < size:
        data = client_socket.recv(size - len(received))
        if not data:
            raise ConnectionError(f"closed after {len(received)} of {size} bytes")
        received += data
    return received


def main():
    """Send the message, wait for its echo and print it; exit if none comes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, quietly
    parser = argparse.ArgumentParser(description="Echo client for server.py.")
    parser.add_argument("--host", default=HOST, help="of the server (%(default)s)")
    parser.add_argument("--port", default=PORT, type=int, help="(%(default)s)")
    parser.add_argument("--timeout", default=TIMEOUT, type=float, help="seconds")
    parser.add_argument("message", default="Hello, Server!", type=fsencode, nargs="?")
    args = parser.parse_args()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client_socket:
            client_socket.settimeout(args.timeout or -1)  # 0 would mean: never wait
            client_socket.connect((args.host, args.port))
            client_socket.sendall(args.message)
            response = receive_exactly(client_socket, len(args.message))
    except ConnectionRefusedError:
        sys.exit(f"Nobody listens on {args.host}:{args.port} (start server.py first)")
    except (OSError, OverflowError, TypeError, ValueError) as error:
        advice = "check --host, --port and --timeout, and what the server printed"
        sys.exit(f"No echo from {args.host}:{args.port}: {error} ({advice})")
    if hasattr(sys.stdout, "reconfigure"):  # not so in IDLE, which can show all letters
        sys.stdout.reconfigure(errors="backslashreplace")
    # !r shows line breaks and terminal codes from the network instead of obeying them.
    print(f"Server responded: {response.decode('utf-8', errors='replace')!r}")


if __name__ == "__main__":
    main()
