"""Firmware: flash and RAM of the four MLPerf Tiny models, what was predicted of them, bands."""

from __future__ import annotations

from typing import Any

from figures import Outcome, Skip, item, model

from edgekit import boards, embed, emulate, patchwise, pipeline

BOARDS = ("qemu_mps2_an386", "qemu_mps3_an547")
# TFLite Micro with CMSIS-NN: share of its flash (code + model), its arena and stack on M4 and M55;
# what memory may be, session and scratch included, without the stack
PEERS = {
    "kws_ref_model": (0.40 * (91152 + 53936), (22820 + 1236, 27300 + 1236), 16700),
    "pretrainedResnet_quant": (0.60 * (84664 + 98496), (54996 + 1236, 54996 + 1236), 34000),
    "vww_96_int8": (0.50 * (91152 + 333288), (100708 + 1236, 100708 + 1236), 56000),
    "ad01_int8": (0.95 * (36904 + 276976), (2580 + 748, 5172 + 748), 1600),
}
BESIDE = 24 * 1024  # bytes of flash that are no weights, biases or scales


def _board(name: str) -> boards.Board:
    board = boards.load(name)
    missing = emulate.missing(board)
    if missing:
        raise Skip(missing)
    return board


@item(
    "embed.size",
    "flash <= weights + biases + 24 KB, a share of TFLM's; RAM <= TFLM's, memory <= a bar",
)
def size() -> Outcome:
    figure: dict[str, Any] = {}
    holds = True
    for i, name in enumerate(BOARDS):
        board = _board(name)
        for file, (flash, ram, most) in PEERS.items():
            built = pipeline.build(model(f"{file}.tflite"), board=board)
            f = embed.measure(embed.project(built.data, board, file))
            memory = sum(f.memory.values())
            good = f.flash - f.weights <= BESIDE and f.flash <= flash
            good = good and f.ram <= ram[i] and memory <= most
            figure[f"{file} {name}"] = {
                "flash": f.flash,
                "beside": f.flash - f.weights,
                "bar": round(flash),
                "ram": f.ram,
                "ram_bar": ram[i],
                "memory": memory,
                "memory_bar": most,
                "code": f.code,
                "holds": good,
            }
            holds = holds and good
    return Outcome(figure, holds)


@item(
    "embed.prediction", "memory exact, code within 2 % or 512 B, stack 0 to 256 B above the paint"
)
def prediction() -> Outcome:
    figure: dict[str, Any] = {}
    holds = True
    for name in BOARDS:
        board = _board(name)
        for file in PEERS:
            built = pipeline.build(model(f"{file}.tflite"), board=board)
            told = embed.predict(built.data, board)
            f = embed.measure(embed.project(built.data, board, file))
            if isinstance(told, str) or told.stack is None or f.stack_painted is None:
                return Outcome(str(told), False)
            code, real = sum(told.code.values()), sum(f.code.values())
            above = told.stack - f.stack_painted
            figure[f"{file} {name}"] = {
                "code": (code, real),
                "stack": (told.stack, f.stack_painted),
                "memory": told.memory == f.memory,
            }
            near = abs(code - real) <= max(512, real // 50)
            holds = holds and near and 0 <= above <= 256 and told.memory == f.memory
    return Outcome(figure, holds)


@item(
    "plan.patchwise", "MobileNetV2-224 in half its arena at <= 1.25 of the MACs; on a 520 KB board"
)
def bands() -> Outcome:
    file = model("mobilenet_v2_1.0_224_quant.tflite")
    plain = pipeline.build(file, board="alif_e7")
    target = pipeline.target_of(plain.board)
    found = patchwise.fit(plain.lowered, target, plain.plan.main_bytes // 2)
    if found is None:
        return Outcome("no bands", False)
    facts = found[2]
    small = pipeline.build(file, board="rp2350")
    figure = {
        "arena": (facts.arena_before, facts.arena),
        "macs": (facts.macs_before, facts.macs),
        "bands": facts.bands,
        "ops": facts.ops,
        "rp2350": small.plan.main_bytes,
    }
    half = facts.arena <= facts.arena_before / 2 and facts.macs <= 1.25 * facts.macs_before
    return Outcome(figure, half and small.plan.main_bytes < small.board.ram_bytes)
