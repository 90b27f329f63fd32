"""Many echo clients at once, and a chart of when server.py answered each of them.

    python multi_client.py [--clients N] [--messages N] [--delay SECONDS]
                           [--host HOST] [--port PORT]

Start server.py in another terminal first. In the chart, each client has a row, and time
runs from left to right. A server with a thread per client serves all of them at once.
"""

import argparse
import signal
import socket
import sys
import threading
import time

HOST = "localhost"  # where server.py listens by default
PORT = 8080  # the port on which server.py listens by default
TIMEOUT = 30  # seconds that each wait for the server may last
COLUMN = 0.1  # seconds per column of the chart; in a long run, more
WIDTH = 65  # columns of a long run, so that a row fits in a terminal of 80 columns

failures = []  # what went wrong; append() is atomic (one step), so it needs no lock


def run_client(name, marks, args):
    """Be one client: send messages, check their echoes, and mark when they arrive."""
    marks.append((".", time.perf_counter()))  # before this, its row is blank
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client_socket:
            client_socket.settimeout(TIMEOUT)
            client_socket.connect((args.host, args.port))
            with client_socket.makefile("rb") as reader:
                for number in range(1, args.messages + 1):
                    if number > 1:
                        time.sleep(args.delay)
                        marks.append((".", time.perf_counter()))
                    message = f"{name}, message {number}".encode()
                    client_socket.sendall(message)
                    response = reader.read(len(message))  # fewer bytes if disconnected
                    if response != message:
                        raise ConnectionError(f"wrong echo: {response!r}")
                    marks.append(("o", time.perf_counter()))
    except (OSError, OverflowError, TypeError, ValueError) as error:
        marks.append(("x", time.perf_counter()))
        failures.append(f"{name}: {error}")


def run_clients(args):
    """Run all clients at once, and wait for them; return their names and marks."""
    clients = []
    threads = []
    for number in range(1, args.clients + 1):
        name = f"Client {number}"
        marks = []
        clients.append((name, marks))
        thread = threading.Thread(target=run_client, args=(name, marks, args))
        try:
            thread.start()  # returns at once, so the next client need not wait
            threads.append(thread)
        except RuntimeError as error:  # perhaps too many threads are running
            marks.append(("x", time.perf_counter()))
            failures.append(f"{name}: {error}")
    for thread in threads:
        thread.join()  # blocks until that thread has finished
    return clients


def chart_row(marks, started, column):
    """Return a row of the chart, in which each column stands for `column` seconds."""
    row = ""
    filler = " "
    for mark, marked in marks:
        place = int((marked - started) / column)
        row = row.ljust(place, filler)
        if mark == ".":
            filler = "."
        else:
            filler = "-"
            if len(row) == place or mark == "x":  # one "o" for all echoes in a column
                row += mark
    return row


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
    if args.clients < 1 or args.messages < 1 or args.delay < 0:
        parser.error("--clients and --messages start at 1, --delay at 0")
    return args


def main():
    """Run all clients at once, and draw what happened."""
    args = read_options()
    print(f"Starting clients: {args.clients}", flush=True)
    started = time.perf_counter()
    clients = run_clients(args)
    seconds = time.perf_counter() - started
    column = max(COLUMN, seconds / WIDTH)
    echoes = 0
    for name, marks in clients:
        print(f"{name:11} {chart_row(marks, started, column)}")
        echoes += sum(mark == "o" for mark, _ in marks)
    print(f". waiting  o echo  - pause  x failure  one column: {column:.2f} seconds")
    messages = args.clients * args.messages
    print(f"Echoes: {echoes} of {messages}")
    if failures:
        sys.exit(f"Failures: {len(failures)}, the first: {failures[0]}")
    pauses = args.clients * (args.messages - 1) * args.delay
    print(f"Seconds: {seconds:.1f} (the pauses of all clients: {pauses:.1f})")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C stops the program at once
    main()
