"""A machine that begins to rattle: an autoencoder of its spectra, in int8, with a limit for alarms.

python examples/anomaly_detection.py

What the autoencoder cannot rebuild is not normal: its mean squared error is a spectrum's score.
Everything is made here; with recordings of a machine of yours, replace `spectra`.
"""

import numpy as np
import torch
from edgekit_runtime import Session
from torch import nn

from edgekit import check, explain, pipeline

BANDS, SECONDS = 64, 0.128
rng = np.random.default_rng(0)


def spectra(count: int, rattle: float) -> np.ndarray:
    """(count, BANDS) float32: log power of a hum of some speed, noise and bursts of 1.3 kHz."""
    t = np.arange(int(8000 * SECONDS)) / 8000
    speed = rng.uniform(90, 130, (count, 1, 1))
    order = np.arange(1, 9)[:, None]
    hum = (np.sin(2 * np.pi * speed * order * t + rng.uniform(0, 6.3, (count, 8, 1))) / order).sum(
        1
    )
    bursts = np.sin(2 * np.pi * 1300 * t) * (np.sin(2 * np.pi * 25 * t) > 0.8) * rattle
    wave = hum + bursts + rng.normal(size=hum.shape) * 0.3
    power = np.abs(np.fft.rfft(wave * np.hanning(len(t))))[:, : 8 * BANDS] ** 2
    return np.log10(power.reshape(count, BANDS, 8).sum(2) + 1e-3).astype(np.float32)


normal = spectra(2000, 0)
mean, spread = normal.mean(0), normal.std(0)
train = (normal - mean) / spread
torch.manual_seed(0)
net = nn.Sequential(
    nn.Linear(BANDS, 32), nn.ReLU(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 32), nn.ReLU(),
    nn.Linear(32, BANDS),
)  # fmt: skip
adam, data = torch.optim.AdamW(net.parameters(), 3e-3), torch.tensor(train)
for batch in (b for _ in range(40) for b in torch.randperm(len(data)).split(64)):
    adam.zero_grad()
    nn.functional.mse_loss(net(data[batch]), data[batch]).backward()
    adam.step()

how = {"board": "nrf52840dk", "shapes": {"input": (1, BANDS)}, "calibration": {"input": train}}
built = pipeline.build(net.eval(), **how)
test = (np.concatenate([spectra(200, 0), spectra(200, 0.6)]) - mean) / spread
rattling = np.arange(400) >= 200


def scores(run: object) -> np.ndarray:
    """Mean squared error of every test spectrum."""
    return np.array([((run(x[None]) - x) ** 2).mean() for x in test])


with torch.no_grad():
    exact = scores(lambda x: net(torch.tensor(x)).numpy())
with Session(built.data) as session:
    int8 = scores(lambda x: next(iter(session.run(x).values())))
    usual = [((next(iter(session.run(x[None]).values())) - x) ** 2).mean() for x in train[:500]]
limit = np.quantile(usual, 0.99)
print(f"AUC: float {check.auc(exact, rattling):.3f}, int8 {check.auc(int8, rattling):.3f}")
print(f"limit {limit:.2f}: {100 * np.mean(int8[rattling] > limit):.0f} % of rattling found, "
      f"{100 * np.mean(int8[~rattling] > limit):.1f} % false alarms")  # fmt: skip
need = explain.needs(built.data, built.board)
print(f"on {built.board.id}: {len(built.data):,} B of flash and {need.ram:,} B of RAM")
