"""By hand: many clients at once, good requests and bad, against a real server; nothing may fail and memory must not grow.

python -m tests.serving.load runs/a/finetune/x/probe runs/a/finetune/y/probe [--clients 32] [--seconds 20]
"""

import argparse
import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

JSON = {"content-type": "application/json"}
WORDS = (
    "a",
    "film",
    "plot",
    "of",
    "quietly",
    "moving",
    "dull",
    "story",
    "with",
    "care",
    "every",
    "scene",
    "bad",
    "good",
)
# One request in so many is one of these, and must be refused.
BAD_EVERY = 20
BAD = {
    "binary": (bytes(range(256)) * 40, {400, 422}),
    "not JSON": (b'{"rows": [', {400}),
    "too large": (b'{"rows": [{"text": "' + b"a" * 2_000_000 + b'"}]}', {413}),
    "unknown task": (b'{"rows": [{"text": "a"}], "tasks": ["nowhere"]}', {422}),
    "too long": (json.dumps({"rows": [{"text": "a" * 30_000}]}).encode(), {422}),
}


class Tally:
    """What has come back so far."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.refused: Counter[str] = Counter()
        self.wrong: list[str] = []


def text(draws: random.Random) -> str:
    """Some words."""
    return " ".join(draws.choices(WORDS, k=draws.randint(3, 40)))


async def client(http: httpx.AsyncClient, seed: int, until: float, tally: Tally) -> None:
    """One request after another, as fast as the answers come."""
    draws = random.Random(seed)
    while time.perf_counter() < until:
        if draws.randrange(BAD_EVERY) == 0:
            name, (body, expected) = draws.choice(list(BAD.items()))
            reply = await http.post("/answer", content=body, headers=JSON)
            tally.refused[f"{name}: {reply.status_code}"] += 1
            if reply.status_code not in expected:
                tally.wrong.append(f"{name}: {reply.status_code} {reply.text[:200]}")
            continue
        rows = [{"text": text(draws), "text_pair": text(draws)} for _ in range(draws.randint(1, 4))]
        started = time.perf_counter()
        reply = await http.post("/answer", json={"rows": rows})
        tally.latencies.append(time.perf_counter() - started)
        tally.statuses[reply.status_code] += 1
        if reply.status_code != 200 or len(reply.json()["answers"]) != len(rows):
            tally.wrong.append(f"{reply.status_code} {reply.text[:200]}")


def resident_mb(pid: int) -> float:
    """Memory of a process, in 2^20 bytes; Linux."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


async def watch(pid: int, until: float, memory: list[float]) -> None:
    """Once a second."""
    while time.perf_counter() < until:
        memory.append(resident_mb(pid))
        await asyncio.sleep(1)


async def load(url: str, pid: int, clients: int, seconds: float) -> tuple[Tally, list[float]]:
    """All clients, and the memory by second."""
    tally, memory = Tally(), []
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        await client(http, -1, time.perf_counter() + 2, Tally())  # warm
        until = time.perf_counter() + seconds
        await asyncio.gather(watch(pid, until, memory), *(client(http, seed, until, tally) for seed in range(clients)))
    return tally, memory


def main() -> None:
    """Start the server, load it, stop it, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()
    command = [sys.executable, "-m", "foundation.serve", f"runs=[{','.join(args.runs)}]", "port=0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        print(line, end="")
        if found := re.search(r"http://[^\s]+", line):
            break
    tally, memory = asyncio.run(load(found[0], server.pid, args.clients, args.seconds))
    server.send_signal(signal.SIGTERM)
    status = server.wait(30)
    milliseconds = 1000 * np.array(tally.latencies)
    print(f"{args.clients} clients, {args.seconds:g} s: {len(milliseconds):,} answered, {dict(tally.statuses)}")
    print(f"{len(milliseconds) / args.seconds:.0f} requests/s; ms: median {np.median(milliseconds):.0f}, ", end="")
    print(f"95 % {np.quantile(milliseconds, 0.95):.0f}, longest {milliseconds.max():.0f}")
    print(f"refused as they should be: {dict(sorted(tally.refused.items()))}; wrong: {len(tally.wrong)}")
    print(f"memory by second, MB: {' '.join(f'{mb:.0f}' for mb in memory)}; exit status {status}")
    for sentence in tally.wrong[:10]:
        print("  ", sentence)
    sys.exit(bool(tally.wrong) or status != 0)


if __name__ == "__main__":
    main()
