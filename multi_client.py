"""Many echo clients at once, and a picture of when server.py served each of them.

    python multi_client.py [--clients N] [--messages N] [--delay SECONDS]
                           [--host HOST] [--port PORT] [--timeout SECONDS]

Start server.py in another terminal first. You will see a bar for each client, from left
to right as time goes by: a server with a thread per client serves all of them at once.
"""

import argparse
import signal
import socket
import sys
import threading
import time
from bisect import bisect_left

OPTIONS = {  # the value where none is given, and what it is for
    "--host": ("localhost", "where server.py listens (%(default)s)"),
    "--port": (8080, "likewise (%(default)s)"),
    "--clients": (5, "how many: enough to see a pattern (%(default)s)"),
    "--messages": (3, "from each client, one after another (%(default)s)"),
    "--delay": (0.5, "seconds between the messages of a client (%(default)s)"),
    "--timeout": (10.0, "seconds of silence until it gives up (%(default)s)"),
}
ROWS = 20  # clients that are drawn: as many as a small terminal shows
WIDTH = 68  # columns of a bar, which with the name before it makes 79 at most
TIPS = {ConnectionRefusedError: "start server.py first"}
TIP = "check --host, --port, --timeout, what the server printed; or try fewer --clients"

failed = []  # why each client failed; append() is one step, so threads need no lock


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


def run_client(address, args, name, times):
    """Be one client: send every message, check its echo and note the time (seconds)."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client_socket:
            client_socket.settimeout(args.timeout)
            client_socket.connect(address)
            for number in range(1, args.messages + 1):
                time.sleep(args.delay if number > 1 else 0)
                message = f"{name}, message {number}".encode()
                client_socket.sendall(message)
                response = receive_exactly(client_socket, len(message))
                if response != message:
                    raise ValueError(f"sent {message!r}, received {response!r}")
                times.append(time.perf_counter())
    except (OSError, OverflowError, ValueError) as error:
        failed.append(f"{name} to {args.host}: {error} ({TIPS.get(type(error), TIP)})")


def at_once(clients):
    """Return how many clients, at the most, were being served at the same moment."""
    # A client is being served from its first to its last echo: both came through one
    # connection. To be connected proves nothing, for the system connects clients before
    # the server accepts them.
    first = sorted(times[1] for times in clients.values() if len(times) > 1)
    last = sorted(times[-1] for times in clients.values() if len(times) > 1)
    # At each first echo: as many have begun, less those that have had their last.
    return max((n - bisect_left(last, at) for n, at in enumerate(first, 1)), default=0)


def draw(clients, seconds):
    """Print a bar for each (name, times) of clients, all on the same scale."""
    for name, times in clients[:ROWS]:
        bar = "."
        for at in times[1:]:
            column = int((at - times[0]) / seconds * WIDTH)
            bar = bar[:column].ljust(column, "-" if "o" in bar else ".") + "o"
        print(f"{name:9} {bar}")
    print(f"... and {len(clients) - ROWS} more" if len(clients) > ROWS else "")


def main():
    """Read the options, run the clients, draw what happened and say how it went."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends all threads at once
    parser = argparse.ArgumentParser(description="Many echo clients at once.")
    for name, (value, text) in OPTIONS.items():
        parser.add_argument(name, default=value, type=type(value), help=text)
    args = parser.parse_args()
    if not (min(args.clients, args.messages) > 0 and args.timeout > 0 <= args.delay):
        parser.error("--clients, --messages, --timeout: above 0; --delay: 0 or more")
    print(f"Clients: {args.clients} (. waits, o echo, - is served) ...", flush=True)
    clients = {f"Client {n}": [time.perf_counter()] for n in range(1, args.clients + 1)}
    threads = []
    try:
        address = (socket.gethostbyname(args.host), args.port)
        for client in clients.items():
            thread = threading.Thread(target=run_client, args=(address, args, *client))
            thread.start()  # does not wait: this client runs while the next one starts
            threads.append(thread)
    except (OSError, UnicodeError, RuntimeError) as error:  # no such host, or no thread
        failed.extend([f"{args.host}: {error} ({TIP})"] * (args.clients - len(threads)))
    for thread in threads:
        thread.join()
    took = time.perf_counter() - clients["Client 1"][0]
    # From the first that was served to the last, and then those that never were.
    draw(sorted(clients.items(), key=lambda client: client[1][1:] or [1e99]), took)
    if args.messages > 1:  # one echo alone takes no time that others could share
        print(f"Served at the same time: {at_once(clients)} of {args.clients} clients")
    echoes = sum(len(times) - 1 for times in clients.values())
    print(f"{args.clients} clients, {echoes} echoes, {len(failed)} errors, {took:.2f}s")
    if failed:
        sys.exit(f"{len(failed)} of {args.clients} clients failed, first {failed[0]}")


if __name__ == "__main__":
    main()
