"""Board files: what ships is valid, and every mistake names the file, the key and a way out."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from edgekit import boards, paths
from edgekit.errors import BoardError

REQUIRED = {
    "rpi3",
    "rpi4",
    "rpi5",
    "rpi_zero2w",
    "phone_armv82",
    "phone_i8mm",
    "nucleo_l4r5zi",
    "nucleo_h743zi",
    "nrf52840dk",
    "rp2350",
    "rp2040",
    "alif_e7",
    "host",
    "qemu_arm64",
    "qemu_mps2_an386",
    "qemu_mps3_an547",
}


def test_shipped_boards_are_valid() -> None:
    assert set(boards.ids()) >= REQUIRED
    for board in map(boards.load, boards.ids()):
        assert board.name and board.source and board.target.zig
        assert board.bare == (board.target.zig.startswith("thumb"))
        for isa in board.isa:
            assert isa in boards.ISAS
        banks = sorted(board.memory, key=lambda b: b.base)
        for low, high in itertools.pairwise(banks):
            assert low.base + low.size_kib * 1024 <= high.base, f"{board.id}: banks overlap"


@pytest.mark.parametrize(
    ("board", "flash_kib", "ram_kib", "mhz"),
    [
        ("nucleo_l4r5zi", 2048, 640, 120),
        ("nucleo_h743zi", 2048, 64 + 128 + 512 + 288 + 64, 480),
        ("nrf52840dk", 1024, 256, 64),
        ("rp2350", 4096, 520, 150),
        ("rp2040", 2048, 264, 133),
        ("alif_e7", 5632, 4096 + 2560 + 1024, 400),
    ],
)
def test_facts_of_the_data_sheets(board: str, flash_kib: int, ram_kib: int, mhz: int) -> None:
    loaded = boards.load(board)
    assert (loaded.flash_kib, loaded.ram_kib, loaded.clock_mhz) == (flash_kib, ram_kib, mhz)
    assert loaded.flash_bytes == flash_kib * 1024


def write(folder: Path, change: str, to: str, board: str = "nrf52840dk") -> Path:
    text = paths.data("boards", f"{board}.toml").read_text()
    assert change in text
    path = folder / "mine.toml"
    path.write_text(text.replace(change, to))
    return path


@pytest.mark.parametrize(
    ("change", "to", "expected"),
    [
        ("ram_kib", "ram_kb", ["unknown key `ram_kb`", "`ram_kib`"]),
        ("baud = ", "bauds = ", ["unknown key `link.bauds`", "`link.baud`"]),
        (
            "size_kib = 256",
            "size_kb = 256",
            ["unknown key `memory[1].size_kb`", "`memory[1].size_kib`"],
        ),
        ("clock_mhz = 64", 'clock_mhz = "64"', ["`clock_mhz` must be of type int", "'64'"]),
        ("clock_mhz = 64", "clock_mhz = true", ["`clock_mhz` must be of type int"]),
        ("clock_mhz = 64", "clock_mhz = -64", ["`clock_mhz` is negative"]),
        ("clock_mhz = 64", "", ["needs flash_kib, clock_mhz"]),
        ('core = "cortex-m4"', "", ["`core` is missing"]),
        ('isa = ["dsp"]', 'isa = ["dps"]', ["`isa` cannot be 'dps'", "dsp"]),
        ('kind = "main"', 'kind = "ram"', ["cannot be 'ram'", "main"]),
        ("ram_kib = 256", "ram_kib = 255", ["ram_kib = 255", "add up to 1024 and 256"]),
        ("align_bytes = 16", "align_bytes = 64", ["align_bytes"]),
        ("reason = ", "# ", ["power.reason"]),
        ("[link]", "[link", ["is not TOML"]),
        ("ram_kib = 256", 'ram_kib = 256\nid = "x"', ["remove the key `id`"]),
    ],
)
def test_a_wrong_file_says_what_is_wrong(
    tmp_path: Path, change: str, to: str, expected: list[str]
) -> None:
    path = write(tmp_path, change, to)
    with pytest.raises(BoardError) as caught:
        boards.load(path)
    for part in [str(path), *expected]:
        assert part in str(caught.value)


def test_a_users_own_file_is_a_board(tmp_path: Path) -> None:
    path = write(tmp_path, "clock_mhz = 64", "clock_mhz = 32")
    board = boards.load(path)
    assert (board.id, board.clock_mhz, board.ram_kib) == ("mine", 32, 256)


def test_an_unknown_board_names_the_nearest() -> None:
    with pytest.raises(BoardError, match="did you mean nucleo_l4r5zi"):
        boards.load("nucleo_l4r5")
    with pytest.raises(BoardError, match=r"missing.toml.*No such file"):
        boards.load("missing.toml")


def test_fits_up_to_the_last_byte() -> None:
    board = boards.load("nrf52840dk")
    boards.fits(board, 1024 * 1024, 256 * 1024, arena_bytes=256 * 1024)
    with pytest.raises(BoardError) as caught:
        boards.fits(board, 1024 * 1024 + 1, 300 * 1024)
    text = str(caught.value)
    assert "RAM: 307,200 B needed, 262,144 B there, 45,056 B too many" in text
    assert "flash: 1,048,577 B needed, 1,048,576 B there, 1 B too many" in text
    assert "boards it would fit: alif_e7, nucleo_h743zi, nucleo_l4r5zi, rp2350" in text


def test_an_arena_needs_one_bank() -> None:
    board = boards.load("nucleo_h743zi")
    boards.fits(board, 1000, 600 * 1024, arena_bytes=512 * 1024)
    with pytest.raises(BoardError, match="main bank axi_sram: 614,400 B needed, 524,288 B there"):
        boards.fits(board, 1000, 600 * 1024, arena_bytes=600 * 1024)
    with pytest.raises(BoardError, match="no known board of this kind is large enough"):
        boards.fits(board, 1 << 30, 1000)


def test_linux_boards_are_limited_by_ram_alone() -> None:
    board = boards.load("rpi_zero2w")
    boards.fits(board, 1 << 34, 1 << 20)
    with pytest.raises(BoardError, match=r"RAM.*\n.*phone_armv82"):
        boards.fits(board, 0, 1 << 30)
