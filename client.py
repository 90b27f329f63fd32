"""An echo client: it sends a message to server.py and prints what comes back.

    python client.py [--host HOST] [--port PORT] [MESSAGE ...]

Start server.py in another terminal first. You will see: Server responded: '...'
"""

import argparse
import signal
import socket
import sys

HOST = "localhost"  # where server.py listens unless told otherwise
PORT = 8080  # the port on which server.py listens unless told otherwise
TIMEOUT = 10  # seconds that each call on the socket may block
MESSAGE = "Hello, Server!"


def get_echo(host, port, message):
    """Send a message (bytes) and return its echo (bytes); OSError if none comes."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client_socket:
        client_socket.settimeout(TIMEOUT)
        client_socket.connect((host, port))
        client_socket.sendall(message)
        return receive_exactly(client_socket, len(message))


def receive_exactly(client_socket, size):
    """Return the next `size` bytes; ConnectionError if the server closes earlier."""
    received = b""
    # TCP is a stream of bytes, without message boundaries: a recv() may return a part.
    while len(received) < size:
        data = client_socket.recv(size - len(received))
        if not data:
            raise ConnectionError(f"closed after {len(received)} of {size} bytes")
        received += data
    return received


def main():
    """Send the message from the command line; print its echo, or why there is none."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback on Ctrl-C
    parser = argparse.ArgumentParser(
        description="Echo client for server.py.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default=HOST, help="address of the server")
    parser.add_argument("--port", default=PORT, type=int, help="port of the server")
    parser.add_argument("message", default=[MESSAGE], nargs="*", help="text to send")
    args = parser.parse_args()
    try:
        message = " ".join(args.message).encode()  # sockets send bytes, not text
    except UnicodeEncodeError as error:
        sys.exit(f"Cannot encode the message: {error} (use other characters)")
    server = f"{args.host}:{args.port}"
    try:
        response = get_echo(args.host, args.port, message)
    except ConnectionRefusedError:
        sys.exit(f"Nothing is listening on {server} (start server.py first)")
    except (OSError, OverflowError, TypeError, UnicodeError) as error:
        advice = "check --host and --port, and what the server printed"
        sys.exit(f"No echo from {server}: {error} ({advice})")
    if hasattr(sys.stdout, "reconfigure"):  # IDLE has none, and can show any text
        # Letters that the terminal lacks are printed as escapes, such as \xe9.
        sys.stdout.reconfigure(errors="backslashreplace")
    text = response.decode("utf-8", errors="replace")  # the server may send any bytes
    print(f"Server responded: {text!r}")  # !r escapes line breaks and control codes


if __name__ == "__main__":
    main()
