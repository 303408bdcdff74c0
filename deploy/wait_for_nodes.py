"""Wait until the Ray cluster at RAY_ADDRESS has the given number of nodes (first argument)."""

import sys
import time

import ray


def main(wanted: int) -> None:
    while not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, logging_level="error")
        except ConnectionError:  # the head has not started yet
            time.sleep(1)
    while sum(node["Alive"] for node in ray.nodes()) < wanted:
        time.sleep(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
