"""An echo client: it sends a message to server.py and prints what comes back.

    python client.py [--host HOST] [--port PORT] [MESSAGE ...]

Start server.py in another terminal first. You will see: Server responded: '...'
"""

import argparse
import signal
import socket
import sys

HOST = "localhost"  # where server.py listens by default
PORT = 8080  # the port on which server.py listens by default
TIMEOUT = 10  # seconds that each call on the socket may block
MESSAGE = "Hello, Server!"


def get_echo(host, port, message):
    """Send a message (bytes), return its echo (bytes); raise OSError if none comes."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client_socket:
        client_socket.settimeout(TIMEOUT)
        client_socket.connect((host, port))
        client_socket.sendall(message)
        return receive_exactly(client_socket, len(message))


def receive_exactly(client_socket, size):
    """Return the next `size` bytes; raise ConnectionError if fewer arrive."""
    received = b""
    # TCP is a stream of bytes, without message boundaries: recv() may return a part.
    while len(received) < size:
        data = client_socket.recv(size - len(received))
        if not data:
            raise ConnectionError(f"closed after {len(received)} of {size} bytes")
        received += data
    return received


def main():
    """Send the message from the command line; print its echo, or why there is none."""
    parser = argparse.ArgumentParser(description="Echo client for server.py.")
    parser.add_argument("--host", default=HOST, help="default: %(default)s")
    parser.add_argument("--port", default=PORT, type=int, help="default: %(default)s")
    parser.add_argument("message", nargs="*", help="words to send")
    args = parser.parse_args()
    message = " ".join(args.message) or MESSAGE
    try:
        data = message.encode()  # sockets send bytes
        response = get_echo(args.host, args.port, data)
    except (OSError, OverflowError, UnicodeError) as error:
        server = f"{args.host}:{args.port}"
        sys.exit(f"No echo from {server}: {error} (is server.py running there?)")
    if hasattr(sys.stdout, "reconfigure"):  # IDLE's stdout lacks this
        # Characters that the terminal cannot show are printed as escapes, such as \xe9.
        sys.stdout.reconfigure(errors="backslashreplace")
    text = response.decode(errors="replace")  # the server may send any bytes
    print(f"Server responded: {text!r}")  # !r escapes line breaks and control codes


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C stops the program at once
    main()
