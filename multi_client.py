"""Many echo clients at once, and a chart of when server.py answered each of them.

    python multi_client.py [--clients N] [--messages N] [--delay SECONDS]
                           [--host HOST] [--port PORT]

Start server.py in another terminal first. In the chart, each client has a row, and time
runs from left to right: a server with a thread per client serves all of them at once.
"""

import argparse
import math
import signal
import socket
import sys
import threading
import time

HOST = "localhost"  # where server.py listens by default
PORT = 8080  # the port on which server.py listens by default
TIMEOUT = 30  # seconds that each call on a socket may block
COLUMN = 0.1  # seconds that one column of the chart stands for
WIDTH = 64  # about how many columns a longer run has
ROWS = 16  # clients to draw at most, so that everything fits a terminal of 24 lines

failures = []  # what went wrong; append() is a single step, so it needs no lock


def run_client(name, echo_times, started, args):
    """Be one client: send messages, check their echoes, note their times (seconds)."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client_socket:
            client_socket.settimeout(TIMEOUT)
            client_socket.connect((args.host, args.port))
            for number in range(1, args.messages + 1):
                if number > 1:
                    time.sleep(args.delay)
                message = f"{name}, message {number}".encode()
                client_socket.sendall(message)
                response = receive_exactly(client_socket, len(message))
                if response != message:
                    raise ConnectionError(f"sent {message!r}, received {response!r}")
                echo_times.append(time.perf_counter() - started)
    except (OSError, OverflowError) as error:
        failures.append(f"{name}: {error}")


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


def run_clients(started, args):
    """Run all clients at once; return each client's echo times, by its name."""
    clients = {}
    threads = []
    for number in range(1, args.clients + 1):
        name = f"Client {number}"
        clients[name] = []
        thread_args = (name, clients[name], started, args)
        thread = threading.Thread(target=run_client, args=thread_args)
        try:
            thread.start()  # returns at once, so the next client need not wait
            threads.append(thread)
        except RuntimeError as error:
            failures.append(f"{name}: {error}")
    for thread in threads:
        thread.join()  # blocks until that thread has finished
    return clients


def row(echo_times, column, width):
    """Return a row of the chart: up to `width` columns of `column` seconds each."""
    if not echo_times:
        return "." * width  # never served
    echoes = [int(seconds / column) for seconds in echo_times]
    marks = ["."] * echoes[0]
    marks += ["-"] * (echoes[-1] - echoes[0] + 1)
    for echo in echoes:
        marks[echo] = "o"
    return "".join(marks)


def draw(clients, seconds):
    """Draw a run that took `seconds`; the client that was served last comes last."""
    column = max(COLUMN, seconds / WIDTH)
    width = int(seconds / column) + 1
    rows = {name: row(clients[name], column, width) for name in clients}
    names = sorted(rows, key=lambda name: rows[name].count("."))
    step = math.ceil(len(names) / ROWS)
    drawn = names[::-step]  # from the end, so that the last one is always drawn
    for name in reversed(drawn):
        print(f"{name:13} {rows[name]}")
    if step > 1:
        print(f"(one client in {step} is drawn)")
    print(f". not served   o echo   - being served   one column: {column:.2f} seconds")


def read_options():
    """Return the options from the command line; exit if one of them makes no sense."""
    parser = argparse.ArgumentParser(description="Many echo clients for server.py.")
    parser.add_argument("--host", default=HOST, help="default: %(default)s")
    parser.add_argument("--port", default=PORT, type=int, help="default: %(default)s")
    parser.add_argument("--clients", default=5, type=int, help="default: %(default)s")
    parser.add_argument("--messages", default=3, type=int, help="default: %(default)s")
    parser.add_argument(
        "--delay", default=0.5, type=float, help="default: %(default)s seconds"
    )
    args = parser.parse_args()
    if args.clients < 1 or args.messages < 1 or not 0 <= args.delay < math.inf:
        parser.error("--clients and --messages start at 1, --delay at 0")
    return args


def main():
    """Run all clients at once, wait for them, and show what happened."""
    args = read_options()
    print(f"Starting clients: {args.clients}", flush=True)
    started = time.perf_counter()
    clients = run_clients(started, args)
    seconds = time.perf_counter() - started
    echoes = sum(len(echo_times) for echo_times in clients.values())
    if echoes > 0:
        draw(clients, seconds)
    print(f"Echoes: {echoes}, failures: {len(failures)}")
    if echoes < args.clients * args.messages:
        first = failures[0] if failures else "see the traceback"
        sys.exit(f"First failure: {first} (is server.py running there?)")
    pauses = args.clients * (args.messages - 1) * args.delay
    print(f"Seconds: {seconds:.1f} (the pauses of all clients: {pauses:.1f})")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C stops the program at once
    main()
