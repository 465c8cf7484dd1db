"""A server under full load for minutes, by clients of every kind: does it live, and does its memory grow?

`python -m benchmarks.soak --minutes 10` starts the reference server, or a system of another serve.toml, and prints its
resident memory minute by minute.
"""

import argparse
import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil

CONFIG = Path(__file__).parents[1] / "grader" / "reference" / "final_project" / "serve.toml"
IN_FLIGHT = 100


async def storm(url: str, model: str, seed: int, requests: int) -> Counter[int]:
    """Send requests, `IN_FLIGHT` at a time, and count their statuses; 0 is a connection that a client broke off."""
    rng = random.Random(seed)
    statuses: Counter[int] = Counter()
    places = asyncio.Semaphore(IN_FLIGHT)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=IN_FLIGHT)) as client:

        async def send(kind: str, body: dict[str, Any], content: bytes) -> None:
            async with places:
                if kind == "broken":
                    statuses[(await client.post("/v1/completions", content=content)).status_code] += 1
                elif kind == "whole":
                    statuses[(await client.post("/v1/completions", json=body)).status_code] += 1
                else:
                    async with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as response:
                        async for _ in response.aiter_raw(chunk_size=1024):
                            if kind == "left":
                                statuses[0] += 1
                                return
                            if kind == "slow":
                                await asyncio.sleep(0.01)
                    statuses[response.status_code] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(requests):
                kind = rng.choice(["whole", "whole", "whole", "stream", "stream", "left", "slow", "broken"])
                length, limit = rng.randrange(1, 400), rng.choice([0, 1, 16, 64, 64, 64, 64, 200, 200, 10**9])
                body = {
                    "model": model,
                    "prompt": [rng.randrange(1, 1000) for _ in range(2000 if rng.random() < 0.05 else length)],
                    "max_tokens": limit,
                    "temperature": rng.choice([0, 1]),
                    "logprobs": rng.choice([None, None, 3]),
                    "n": rng.choice([1, 1, 1, 4]),
                }
                group.create_task(send(kind, body, rng.randbytes(200)))
    return statuses


def main() -> None:
    """Run the soak and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--system")
    parser.add_argument("--port", type=int, default=8765)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "final_project.serve", "--config", str(arguments.config)]
    command += ["--port", str(arguments.port), *(["--system", arguments.system] if arguments.system else [])]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{arguments.port}"
    try:
        model = httpx.Client(transport=httpx.HTTPTransport(retries=10)).get(url + "/v1/models").json()["data"][0]["id"]
        began, statuses, storms, told = time.monotonic(), Counter[int](), 0, -1
        while (minutes := (time.monotonic() - began) / 60) < arguments.minutes:
            statuses += asyncio.run(storm(url, model, storms, requests=300))
            storms += 1
            if int(minutes) > told:
                told = int(minutes)
                mebibytes = psutil.Process(server.pid).memory_info().rss >> 20
                print(f"minute {told}: {mebibytes} MiB, statuses {dict(sorted(statuses.items()))}", flush=True)
    finally:
        server.terminate()
        print("the server has ended with", server.wait())


if __name__ == "__main__":
    main()
