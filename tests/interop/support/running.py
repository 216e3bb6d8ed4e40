"""Runs scenarios one after another."""

import asyncio
import time
import traceback


async def run_scenarios(scenarios, subject, seconds):
    """A line for each, `ok NAME` with what it returned or its time; gives false at the first that fails."""
    for scenario in scenarios:
        name, started = scenario.__name__, time.monotonic()
        try:
            note = await asyncio.wait_for(scenario(subject), seconds)
        except asyncio.TimeoutError:
            print(f"FAILED {name}: not done within {seconds} s", flush=True)
            return False
        except Exception as error:  # Whatever it is, it is this scenario's failure.
            print(f"FAILED {name}: {error or type(error).__name__}", flush=True)
            traceback.print_exc()
            return False
        print(f"ok {name} ({note or f'{time.monotonic() - started:.1f} s'})", flush=True)
    return True
