"""Keyword spotting from raw audio: one MFCC front end in Python and in C, the same bits.

python examples/keyword_spotting.py [BOARD] [SPOKEN.npz]: trains on tones that rise, fall, wobble or
stay, or on recordings (pcm, offset and names `label_speaker_take`), builds firmware and runs it.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from edgekit_runtime import Session
from torch import nn

from edgekit import boards, embed, mfcc, paths, pipeline

SAMPLES, SHOWN = 4000, 8
front = mfcc.Mfcc(rate_hz=8000, frame=256, hop=160, mels=20, coefficients=10)


def tones(count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng, t = np.random.default_rng(0), np.arange(SAMPLES) / 8000
    y = np.arange(count) // 4 % 4
    bend = np.stack([1 + t, 1.5 - t, 1.2 + 0.2 * np.sin(40 * t), np.full_like(t, 1.2)])[y]
    phase = 2 * np.pi * np.cumsum(bend * rng.uniform(300, 900, (count, 1)) / 8000, 1)
    x = 3000 * np.sin(phase) + rng.normal(size=phase.shape) * 300
    return x.astype(np.int16), y, np.arange(count) % 4 == 0


def recordings(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    d = np.load(path)
    clips = np.split(d["pcm"], d["offset"][1:-1])
    x = np.stack([np.pad(c[:SAMPLES], (0, max(0, SAMPLES - len(c)))) for c in clips])
    label, take = np.array([n.split("_")[::2] for n in d["names"]]).T.astype(int)
    return x, label, take < 5  # the official test


def train(x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(1, 32, (5, 3), (2, 1), padding=(2, 1)), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.Conv2d(32, 48, 1), nn.BatchNorm2d(48),
        nn.ReLU(), nn.AvgPool2d((3, 2)), nn.Flatten(), nn.Linear(960, int(y.max()) + 1),
    )  # fmt: skip
    adam = torch.optim.AdamW(net.parameters(), 3e-3)
    for i in (i for _ in range(12) for i in torch.randperm(len(x)).split(64)):
        adam.zero_grad()
        nn.functional.cross_entropy(net(x[i]), y[i]).backward()
        adam.step()
    return net.eval()


torch.manual_seed(0)
board = boards.load(sys.argv[1] if len(sys.argv) > 1 else "qemu_mps2_an386")
audio, y, test = recordings(sys.argv[2]) if len(sys.argv) > 2 else tones()
raw = np.stack([front(clip) for clip in audio])[:, None]  # with 8 fractional bits
x = (raw / 256).astype(np.float32)
net = train(torch.tensor(x[~test]), torch.tensor(y[~test]))
how = {"shapes": {"input": x[:1].shape}, "calibration": {"input": x[~test]}, "io": "int8"}
with Session(pipeline.build(net, **how).data) as s:
    scale_zero = (s.inputs()[0].scale, s.inputs()[0].zero)
    q = front.quantized(raw[test], *scale_zero)
    scores = [next(iter(s.run(v[None]).values())) for v in q]
print(f"int8 top-1: {100 * np.mean([a.argmax() for a in scores] == y[test]):.1f} % of {test.sum()}")

folder = Path("build/kws")
embed.write(embed.project(pipeline.build(net, board=board, **how).data, board, "kws"), folder)
text = f"enum {{ CLIPS = {SHOWN}, CLIP_SAMPLES = {SAMPLES} }};\nstatic const int16_t clips[] = {{"
text += ", ".join(map(str, audio[test][:SHOWN].ravel())) + "};\n"
(folder / "clips.h").write_text(front.header("front", *scale_zero) + text)
shutil.copytree(paths.data("native", "audio"), folder, dirs_exist_ok=True)
line = ["make", "-sj2", "run", f"MAIN={Path(__file__).with_suffix('.c').resolve()} mfcc.c"]
said = subprocess.run(line, cwd=folder, stdout=-1, stderr=-2, text=True, check=True).stdout
want = [f"features {a.tobytes().hex()}\nscores {b.tobytes().hex()}\n" for a, b in zip(q, scores)]
same = said.endswith("".join(want[:SHOWN]))
print(f"C on {board.id}: {SHOWN} clips, features and scores {'bit for bit' if same else 'DIFFER'}")
sys.exit(not same)
