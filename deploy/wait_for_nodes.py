"""Waits until the cluster that RAY_ADDRESS names has as many nodes as the argument says."""

import sys
import time

import ray


def main(wanted: int) -> None:
    while not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, logging_level="error")
        except ConnectionError:  # the head has not begun
            time.sleep(1)
    while sum(node["Alive"] for node in ray.nodes()) < wanted:
        time.sleep(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
