"""Compare boards on the networks of MLPerf Tiny, one of them described by a file of one's own."""

from pathlib import Path

import hwcost

HERE = Path(__file__).parent
BOARDS: list[str | Path] = [
    HERE / "stm32l412.yaml",
    HERE / "stm32l412_npu.yaml",
    "gap8_compute",
    "diana",
]


def main() -> None:
    """Print one row for each network on each board, then where the time of one network goes."""
    networks = ["autoencoder", "resnet8", "ds_cnn"]
    print(hwcost.compare(networks, BOARDS, ["latency", "energy", "peak_ram"]))
    print()
    print(hwcost.report("resnet8", BOARDS[0], "latency"))


if __name__ == "__main__":
    main()
