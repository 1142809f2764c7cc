"""By hand: many clients at once, good requests and bad, against a real server; nothing may fail and memory must stay flat.

python -m tests.serving.load [RUN …] [--clients 32] [--seconds 20] [--warm-up 10]      without a RUN: three toys on one encoder
"""

import argparse
import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from tests.serving import toy_tasks

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


# Growth beyond this share of the memory itself, over the time that was watched, is growth; below, an allocator's breathing.
FLAT_WITHIN = 0.01


@dataclass(frozen=True, slots=True)
class Steadiness:
    """How memory went. slope: MB a minute, by least squares. last_third: its mean over that of the middle third, MB."""

    mean_mb: float
    slope: float
    last_third: float
    minutes: float

    @classmethod
    def of(cls, seconds: Sequence[float], mb: Sequence[float]) -> "Steadiness":
        """From samples of memory and when they were taken; six of them at least."""
        times, memory = np.array(seconds) / 60, np.array(mb)
        third = len(memory) // 3
        slope = float(np.polyfit(times, memory, 1)[0])
        later = float(memory[-third:].mean() - memory[-2 * third : -third].mean())
        return cls(float(memory.mean()), slope, later, float(times[-1] - times[0]))

    @property
    def growth_mb(self) -> float:
        """Over the time that was watched, as both ways of looking agree on: a line also rises when only the beginning did."""
        return min(self.slope * self.minutes, 3 * self.last_third)

    @property
    def is_flat(self) -> bool:
        """Whether there was no growth to speak of; memory that falls is no leak."""
        return self.growth_mb < FLAT_WITHIN * self.mean_mb

    def __str__(self) -> str:
        return (
            f"memory {'is flat' if self.is_flat else 'GROWS'}: {self.mean_mb:.0f} MB, {self.slope:+.2f} MB a minute over "
            f"{60 * self.minutes:.0f} s, last third {self.last_third:+.2f} MB over the middle one"
        )


async def watch(pid: int, until: float, memory: dict[float, float]) -> None:
    """Once a second, into seconds -> MB."""
    started = time.perf_counter()
    while (now := time.perf_counter()) < until:
        memory[now - started] = resident_mb(pid)
        await asyncio.sleep(1)


async def load(url: str, pid: int, clients: int, warm_up: float, seconds: float) -> tuple[Tally, dict[float, float]]:
    """All clients; counted, and the memory watched, after a warm-up that is as busy as the rest."""
    tally, memory = Tally(), dict[float, float]()
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        until, unseen = time.perf_counter() + warm_up, Tally()
        await asyncio.gather(*(client(http, -1 - seed, until, unseen) for seed in range(clients)))
        until = time.perf_counter() + seconds
        await asyncio.gather(watch(pid, until, memory), *(client(http, seed, until, tally) for seed in range(clients)))
    return tally, memory


def main() -> None:
    """Start the server, load it, stop it, and say what was seen; exit status 0 where all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--warm-up", type=float, default=10.0)
    args = parser.parse_args()
    if args.seconds < 6:
        parser.error(f"--seconds {args.seconds:g} is too short to tell whether memory is flat: at least 6")
    with tempfile.TemporaryDirectory() as scratch:
        toys = () if args.runs else toy_tasks.three_on_one_encoder().items()
        runs = args.runs or [toy_tasks.save(tuned, Path(scratch) / name) for name, tuned in toys]
        sys.exit(not serve_under_load(runs, args.clients, args.warm_up, args.seconds))


def serve_under_load(runs: list[str], clients: int, warm_up: float, seconds: float) -> bool:
    """Print what was seen; whether nothing failed and memory was flat."""
    command = [sys.executable, "-m", "foundation.serve", f"runs=[{','.join(runs)}]", "port=0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        print(line, end="")
        if found := re.search(r"http://[^\s]+", line):
            break
    tally, memory = asyncio.run(load(found[0], server.pid, clients, warm_up, seconds))
    server.send_signal(signal.SIGTERM)
    try:
        status = server.wait(60)
    finally:
        server.kill()
    milliseconds = 1000 * np.array(tally.latencies)
    print(f"{clients} clients, {seconds:g} s: {len(milliseconds):,} answered, {dict(tally.statuses)}")
    print(f"{len(milliseconds) / seconds:.0f} requests/s; ms: median {np.median(milliseconds):.0f}, ", end="")
    print(f"95 % {np.quantile(milliseconds, 0.95):.0f}, longest {milliseconds.max():.0f}")
    print(f"refused as they should be: {dict(sorted(tally.refused.items()))}; wrong: {len(tally.wrong)}")
    print(f"memory by second, MB: {' '.join(f'{mb:.1f}' for mb in memory.values())}; exit status {status}")
    steadiness = Steadiness.of(list(memory), list(memory.values()))
    print(steadiness)
    for sentence in tally.wrong[:10]:
        print("  ", sentence)
    return not tally.wrong and status == 0 and steadiness.is_flat


if __name__ == "__main__":
    main()
