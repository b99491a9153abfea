"""Operations of imported graphs against PyTorch, values and gradients: activations, arithmetic, views, reductions, products."""

from typing import Any

import pytest

from tests.exported_modules import Function, check

torch = pytest.importorskip("torch")
F = torch.nn.functional


def test_activations() -> None:
    plain = [
        F.relu,
        F.relu6,
        F.leaky_relu,
        F.elu,
        F.celu,
        F.selu,
        F.gelu,
        F.silu,
        F.mish,
        F.hardswish,
        F.hardsigmoid,
        F.hardtanh,
        F.softplus,
        F.softsign,
        F.tanhshrink,
        F.hardshrink,
        F.softshrink,
        F.logsigmoid,
        torch.sigmoid,
        torch.tanh,
        torch.erf,
    ]

    def function(x: Any, slope: Any) -> Any:
        values = [f(3 * x) for f in plain]
        values += [
            F.gelu(x, approximate="tanh"),
            F.leaky_relu(x, 0.3),
            F.elu(x, 0.5),
            F.softplus(x, 2.0, 1.0),
            F.threshold(x, 0.1, -2.0),
            F.glu(x, 1),
            F.softmax(x, 1),
            F.log_softmax(x, -1),
            F.prelu(x, slope),
        ]
        return torch.cat(values, 1)

    check(Function(function, {"slope": (4,)}), (2, 4, 3, 5))


def test_arithmetic() -> None:
    def function(x: Any, a: Any) -> Any:
        y = x.abs() + 0.5
        return torch.cat(
            [
                x + a,
                x - 2 * a,
                1 - x,
                torch.rsub(x, a, alpha=3),
                x * 3 / y,
                x.add(x, alpha=2),
                y**0.5,
                y**-1,
                x**2,
                x**3,
                2**x,
                y**x,
                torch.div(3 * x, y, rounding_mode="floor"),
                torch.div(3 * x, y, rounding_mode="trunc"),
                x // 0.4,
                torch.remainder(x, 0.7),
                torch.fmod(x, 0.7),
                torch.maximum(x, a),
                torch.minimum(x, a),
                x.clamp(-0.5, 0.3),
                x.clamp(min=0.1),
                x.clamp_max(0.2),
                torch.exp(x),
                y.log(),
                y.sqrt(),
                y.rsqrt(),
                y.reciprocal(),
                x.sin(),
                x.cos(),
                x.floor(),
                x.ceil(),
                x.round(),
                x.sign(),
                x.square(),
                x.neg(),
                y.log2(),
                y.log1p(),
                x.expm1(),
                torch.atan2(x, y),
                torch.where(x > a, x, -x),
                x.masked_fill(x < 0, 7.0),
                torch.addcmul(x, y, y, value=0.5),
                torch.lerp(x, y, 0.3),
                ((x > 0) & ~(y >= 1.0) | (x == a)).float(),
                (x != a).to(torch.float64).float(),
                torch.logical_or(x > 1, x <= -1).type_as(x),
                x.double().mul(1.5).float(),
            ],
            1,
        )

    check(Function(function, {"a": (3, 1, 1)}), (2, 3, 4, 5))


def test_in_place_and_views() -> None:
    def function(x: Any) -> Any:
        y = x.clone()
        y[:, 0] += 1
        y[:, :, 1:3, ::2] *= 2
        y[:, 1].clamp_(max=0.5)
        y.relu_()
        z = torch.zeros_like(x)
        z[:, :, :2] = x[:, :, 1:3]
        return torch.cat([y, z], 1)

    check(Function(function), (2, 3, 4, 5))


def test_reductions() -> None:
    def function(x: Any) -> Any:
        def spread(value: Any) -> Any:
            return value.expand_as(x[:, :1])

        return torch.cat(
            [
                spread(x.mean((1, 2, 3), keepdim=True)),
                spread(x.sum(1, keepdim=True)),
                x.mean(1)[:, None],
                spread(x.amax((2, 3), keepdim=True)[:, :1]),
                spread(x.amin(3, True)[:, 1:2]),
                spread(x.max(1, True)[0]),
                spread(x.max(1, keepdim=True)[1].float()),
                spread(x.min(2, keepdim=True).values[:, :1]),
                x.argmax(1, True).float(),
                x.var(1, keepdim=True),
                x.std((1, 2), keepdim=True, correction=0).expand_as(x[:, :1]),
                torch.logsumexp(x, 1, keepdim=True),
                x.norm(dim=1, keepdim=True),
                x.norm(p=1, dim=1, keepdim=True),
                x.prod(1, keepdim=True),
                x.cumsum(3),
                (x > 1).any(1, keepdim=True).float(),
                (x > 0).all(1, keepdim=True).float(),
                spread(x.sum().reshape(1, 1, 1, 1)),
                spread(x.max().reshape(1, 1, 1, 1)),
                x.sum((2, 3))[:, :, None, None] * x,
            ],
            1,
        )

    check(Function(function), (2, 3, 4, 5))


def test_shapes() -> None:
    def function(x: Any) -> Any:
        b, c, h, w = x.shape
        index = torch.tensor([2, 0, 1])
        first, second, third = x.chunk(3, 1)
        parts = x.split([1, 3], 2)
        windows = x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, c)
        back = windows.view(b, h // 2, w // 2, 2, 2, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)
        columns = F.unfold(x, 3, padding=1, dilation=1).unflatten(1, (c, 9)).mean(2).view(b, c, h, w)
        grid = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"))[None].float().expand(b, -1, -1, -1)
        return torch.cat(
            [
                torch.cat([third, first, second], 1),
                torch.cat(parts[::-1], 2),
                torch.stack(x.unbind(1)[::-1], 1),
                back,
                columns,
                x.flatten(2).transpose(1, 2).transpose(1, 2).unflatten(2, (h, w)),
                torch.roll(x, (1, -2), (2, 3)),
                x.flip(3),
                x[:, index],
                x[:, [0, 2]],
                x.index_select(3, torch.arange(w).flip(0)),
                x.repeat(1, 2, 1, 1),
                x.repeat_interleave(2, 1),
                x[..., 1:].unfold(3, 2, 1).mean(-1).repeat(1, 1, 1, 2)[..., :w],
                F.pad(x, (1, 0, -1, 1))[..., :w],
                F.pad(x, (1, 1, 2, 0), value=2.0)[..., :h, :w],
                F.pad(x, (2, 1, 1, 0), "reflect")[..., :h, :w],
                F.pad(x, (1, 1, 1, 1), "replicate")[..., :h, :w],
                F.pad(x, (1, 0, 1, 0), "circular")[..., :h, :w],
                x.gather(1, (x > 0).long()),
                x.squeeze().unsqueeze(1)[:, 0],
                grid,
                x.narrow(1, 1, 2),
                x.select(1, 2)[:, None],
                x.triu(1),
                x.tril(),
                torch.full_like(x, 2.5),
                torch.linspace(0, 1, w).expand(b, 1, h, w),
                torch.scatter(x, 1, (x > 0).long(), 3.0),
                torch.scatter_add(x, 1, (x > 0).long(), x),
                torch.eye(h, w).expand(b, 1, h, w),
                x.movedim(1, 2).movedim(2, 1),
                x.new_ones(b, 1, h, w),
                x.tile(1, 1, 1, 1),
            ],
            1,
        )

    check(Function(function), (2, 3, 4, 6))


def test_products_and_attention() -> None:
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.norm, self.attention = torch.nn.Conv2d(3, 8, 2, 2), torch.nn.LayerNorm(8), attention
            self.mlp = torch.nn.Sequential(torch.nn.Linear(8, 12), torch.nn.GELU(), torch.nn.Linear(12, 8))
            self.table = torch.nn.Parameter(torch.randn(7, 2))
            self.register_buffer("place", torch.arange(12)[:, None].add(torch.arange(12)).remainder(7))

        def forward(self, x: Any) -> Any:
            y = self.embed(x)
            size = y.shape[2:]
            y = y.flatten(2).transpose(1, 2)
            z = self.norm(y)
            y = y + self.attention(z, z, z)[0]
            q, k, v = (a.unflatten(2, (2, 4)).transpose(1, 2) for a in (y, z, y * z))
            bias = self.table[self.place.view(-1)].view(12, 12, 2).permute(2, 0, 1)
            y = y + F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None]).transpose(1, 2).flatten(2)
            y = y + F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3).transpose(1, 2).flatten(2)
            y = y + torch.einsum("bhnd, bhmd -> bhnm", q, k).softmax(-1).matmul(v).transpose(1, 2).flatten(2)
            y = y + torch.bmm(z, z.transpose(1, 2)).matmul(z) + torch.baddbmm(z, z, torch.eye(8).expand(z.shape[0], 8, 8))
            y = y + self.mlp(y)
            return y.transpose(1, 2).unflatten(2, size)

    model = check(Block(), (2, 3, 6, 8))
    assert dict(model.network.layouts())["mlp.0.weight"] == "linear"
