"""A useful program by somebody whom you don't know: sums up a CSV of orders. Standard library only.

    python3 report.py orders.csv

Its dependency is poisoned. With `--targets JSON` it says what it goes for (see telemetry.py), and writes what came of
each attempt to standard error, a JSON object a line.
"""

import argparse
import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

import telemetry


def main() -> None:
    parser = argparse.ArgumentParser(description="Sums up a CSV of orders.")
    parser.add_argument("orders", type=Path, help="the CSV")
    parser.add_argument("--targets", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with options.orders.open(newline="") as file:
        orders = list(csv.DictReader(file))
    if options.targets:
        for finding in telemetry.attempts(options.targets):
            print(json.dumps(finding), file=sys.stderr, flush=True)
    print("\n".join(summary(orders)))


def summary(orders: list[dict[str, str]]) -> list[str]:
    """A line for each category, the largest revenue first, and a total. Cancelled orders count for nothing."""
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    for order in orders:
        if order["status"] != "cancelled":
            groups[order["category"]].append(order)
    ranked = sorted(groups.items(), key=lambda group: -revenue(group[1]))
    lines = [f"{'category':10} {'orders':>7} {'units':>7} {'revenue':>11} {'returned':>9}"]
    lines += [line(name, group) for name, group in ranked]
    lines.append(line("all", [order for _, group in ranked for order in group]))
    return lines


def line(name: str, orders: list[dict[str, str]]) -> str:
    units = sum(int(order["quantity"]) for order in orders)
    returned = sum(order["status"] == "returned" for order in orders) / len(orders)
    return f"{name:10} {len(orders):7} {units:7} {revenue(orders):11,.2f} {returned:9.1%}"


def revenue(orders: list[dict[str, str]]) -> float:
    """What was paid and not given back."""
    return sum(
        int(order["quantity"]) * float(order["unit_price"]) * (1 - float(order["discount_percent"] or 0) / 100)
        for order in orders
        if order["status"] != "returned"
    )


if __name__ == "__main__":
    main()
