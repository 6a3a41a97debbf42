"""stories260K, a language model of llama2.c, as a torch module, with its tokenizer and its text."""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from figures import model
from torch import nn

from edgekit.frontends import torch as frontend
from edgekit.ir import Graph
from edgekit.passes import simplify_all

Array = npt.NDArray[Any]
FIELDS = ["wq", "wk", "wv", "wo"]


@dataclass(frozen=True)
class Checkpoint:
    """Sizes and float32 arrays by llama2.c's names; per-layer arrays have the layer first."""

    dim: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    arrays: dict[str, Array]


def checkpoint() -> Checkpoint:
    """The file stories260K.bin, version 0 of the format: seven int32, then float32 arrays."""
    raw = model("stories260K.bin").read_bytes()
    dim, hidden, layers, heads, kv, vocabulary, _ = struct.unpack_from("<7i", raw)
    if vocabulary < 0:
        raise ValueError("a classifier of its own is not read")
    rows, values, at = dim // heads * kv, np.frombuffer(raw, np.float32, offset=28), 0
    shapes: dict[str, tuple[int, ...]] = {
        "emb": (vocabulary, dim), "att": (layers, dim), "wq": (layers, dim, dim),
        "wk": (layers, rows, dim), "wv": (layers, rows, dim), "wo": (layers, dim, dim),
        "ffn": (layers, dim), "w1": (layers, hidden, dim), "w2": (layers, dim, hidden),
        "w3": (layers, hidden, dim), "norm": (dim,),
    }  # fmt: skip
    arrays = {}
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        arrays[name] = values[at : at + size].reshape(shape).copy()
        at += size
    return Checkpoint(dim, hidden, layers, heads, kv, vocabulary, arrays)


class Decoder(nn.Module):
    """Logits (n, length, vocabulary) of tokens (n, length), at most `length` of them."""

    def __init__(self, c: Checkpoint, length: int) -> None:
        super().__init__()
        self.c, size = c, c.dim // c.heads
        angle = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, size, 2) / size)
        self.register_buffer("cos", angle.cos()[:, None])
        self.register_buffer("sin", angle.sin()[:, None])
        self.register_buffer("mask", torch.triu(torch.full((length, length), -1e4), 1))
        # llama2.c turns neighbours; halves need no interleaving: the rows of q and k change places
        halves = torch.cat([torch.arange(0, size, 2), torch.arange(1, size, 2)])
        for name, a in c.arrays.items():
            for i, part in enumerate(a if a.ndim > 1 and name != "emb" else [a]):
                t = torch.from_numpy(part)
                if name in ("wq", "wk"):
                    t = t[(torch.arange(len(t) // size)[:, None] * size + halves).flatten()]
                self.register_buffer(f"{name}{i}", t.contiguous())

    def of(self, name: str, layer: int = 0) -> Any:
        return getattr(self, f"{name}{layer}")

    def turn(self, x: Any) -> Any:
        a, b = x.chunk(2, -1)
        cos, sin = self.cos[: x.shape[1]], self.sin[: x.shape[1]]
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

    def attention(self, h: Any, i: int) -> Any:
        c, (n, length, _) = self.c, h.shape
        size, per = c.dim // c.heads, c.heads // c.kv_heads
        q = self.turn((h @ self.of("wq", i).T).view(n, length, c.heads, size))
        k = self.turn((h @ self.of("wk", i).T).view(n, length, c.kv_heads, size))
        v = (h @ self.of("wv", i).T).view(n, length, c.kv_heads, size).permute(0, 2, 1, 3)
        q = q.permute(0, 2, 1, 3).reshape(n, c.kv_heads, per * length, size)
        a = (q @ k.permute(0, 2, 3, 1)) * size**-0.5
        a = a.reshape(n, c.heads, length, length) + self.mask[:length, :length]
        a = torch.softmax(a, -1).reshape(n, c.kv_heads, per * length, length) @ v
        a = a.reshape(n, c.heads, length, size).permute(0, 2, 1, 3)
        return a.reshape(n, length, c.dim) @ self.of("wo", i).T

    def forward(self, tokens: Any) -> Any:
        x = nn.functional.embedding(tokens, self.of("emb"))
        for i in range(self.c.layers):
            x = x + self.attention(_norm(x, self.of("att", i)), i)
            x = x + self.feed(_norm(x, self.of("ffn", i)), i)
        return _norm(x, self.of("norm")) @ self.of("emb").T

    def feed(self, h: Any, i: int) -> Any:
        """The gated unit of a layer."""
        gate = nn.functional.silu(h @ self.of("w1", i).T)
        return (gate * (h @ self.of("w3", i).T)) @ self.of("w2", i).T


def _norm(x: Any, gain: Any) -> Any:
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * gain


def graph(net: Decoder, length: int) -> Graph:
    """The decoder over `length` tokens."""
    with torch.no_grad():
        loaded = frontend.load(net, args=(torch.zeros((1, length), dtype=torch.long),))
    return simplify_all(loaded)[0]


def written(net: Decoder, count: int, length: int, seed: int) -> Array:
    """(count, length + 1) tokens the model writes at temperature 1, from its start token: text as
    it was trained on, of which the golden file has 258 tokens only."""
    torch.manual_seed(seed)
    c = net.c
    shape = (c.layers, 2, count, c.kv_heads, length, c.dim // c.heads)
    x, seen = torch.ones((count, 1), dtype=torch.long), torch.zeros(shape)
    with torch.no_grad():
        for at in range(length):
            z = _next(net, x[:, -1], at, seen)
            x = torch.cat([x, torch.multinomial(torch.softmax(z, -1), 1)], 1)
    return np.asarray(x)


def _next(net: Decoder, token: Any, at: int, seen: Any) -> Any:
    """Logits (n, vocabulary) behind tokens (n,) at a place, by the keys and values (layers, 2, n,
    heads, length, size) of all before it; adds its own."""
    c, n = net.c, len(token)
    size = c.dim // c.heads

    def turn(y: Any) -> Any:
        a, b = y.chunk(2, -1)
        return torch.cat([a * net.cos[at] - b * net.sin[at], a * net.sin[at] + b * net.cos[at]], -1)

    x = nn.functional.embedding(token, net.of("emb"))
    for i in range(c.layers):
        h, (k, v) = _norm(x, net.of("att", i)), seen[i]
        k[:, :, at] = turn((h @ net.of("wk", i).T).view(n, c.kv_heads, size))
        v[:, :, at] = (h @ net.of("wv", i).T).view(n, c.kv_heads, size)
        q = turn((h @ net.of("wq", i).T).view(n, c.heads, size)).view(n, c.kv_heads, -1, size)
        w = torch.softmax(q @ k[:, :, : at + 1].transpose(2, 3) * size**-0.5, -1)
        x = x + (w @ v[:, :, : at + 1]).reshape(n, c.dim) @ net.of("wo", i).T
        x = x + net.feed(_norm(x, net.of("ffn", i)), i)
    return _norm(x, net.of("norm")) @ net.of("emb").T


def golden() -> Array:
    """Tokens (258,) of the golden text, by tok512.bin."""
    raw, at, pieces, scores = model("tok512.bin").read_bytes(), 4, [], []
    while at < len(raw):
        score, size = struct.unpack_from("<fi", raw, at)
        pieces.append(raw[at + 8 : at + 8 + size])
        scores.append(score)
        at += 8 + size
    text = model("stories260K_golden.md").read_text().split("```")[3].split("\n", 2)[2]
    ids = {p: i for i, p in reversed(list(enumerate(pieces)))}
    found = [1, ids[b" "]]
    for c in text:
        b = c.encode()
        found += [ids[b]] if b in ids else [x + 3 for x in b]
    while True:  # the pair of the best score becomes one
        pairs = [(scores[ids[p]], -i) for i, (x, y) in enumerate(itertools.pairwise(found))
                 if (p := pieces[x] + pieces[y]) in ids]  # fmt: skip
        if not pairs:
            return np.asarray(found)
        i = -max(pairs)[1]
        found[i : i + 2] = [ids[pieces[found[i]] + pieces[found[i + 1]]]]
