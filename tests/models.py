"""Modules of all sorts, each with the arguments of one run: what runs must trace."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, rnn
from torch.utils.checkpoint import checkpoint

Subject = tuple[nn.Module, tuple[Any, ...]]

#: Name -> a module and the arguments of its forward.
MODELS: dict[str, Callable[[], Subject]] = {}


def model(make: Callable[[], Subject]) -> Callable[[], Subject]:
    MODELS[make.__name__] = make
    return make


class Function(nn.Module):
    """A forward in one expression, with parameters and modules as attributes."""

    def __init__(self, forward: Callable[..., Any], **attributes: Any) -> None:
        super().__init__()
        self.function = forward
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape))


def x(*shape: int) -> Tensor:
    return torch.ones(shape)


@model
def residual_with_one_convolution_twice() -> Subject:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    return Function(lambda m, t: F.relu(m.c(F.relu(m.c(t))) + t), c=conv), (x(1, 4, 8, 8),)


class _ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.patch = nn.Conv2d(3, 32, 4, 4)
        self.cls, self.pos = weight(1, 1, 32), weight(1, 17, 32)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Any:
        t = self.patch(image).flatten(2).transpose(1, 2)
        t = torch.cat([self.cls.expand(len(t), -1, -1), t], 1) + self.pos
        return self.head(self.norm(self.blocks(t))[:, 0])


@model
def vision_transformer() -> Subject:
    return _ViT(), (x(2, 3, 16, 16),)


@model
def whole_transformer() -> Subject:
    return nn.Transformer(16, 2, 2, 2, 32, batch_first=True), (x(2, 5, 16), x(2, 6, 16))


@model
def transformer_with_masks() -> Subject:
    def forward(m: Any, source: Tensor, target: Tensor) -> Any:
        causal = nn.Transformer.generate_square_subsequent_mask(6)
        padding = torch.zeros(2, 5, dtype=torch.bool)
        return m.t(source, target, tgt_mask=causal, src_key_padding_mask=padding)

    net = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)
    return Function(forward, t=net), (x(2, 5, 16), x(2, 6, 16))


@model
def attention_of_other_widths() -> Subject:
    net = nn.MultiheadAttention(16, 4, kdim=8, vdim=12, batch_first=True, add_bias_kv=True)
    return net, (x(2, 5, 16), x(2, 6, 8), x(2, 6, 12))


@model
def attention_with_a_zero_key() -> Subject:
    return nn.MultiheadAttention(16, 4, add_zero_attn=True), (x(5, 2, 16),) * 3


@model
def attention_without_a_batch() -> Subject:
    return nn.MultiheadAttention(16, 4), (x(5, 16),) * 3


@model
def attention_without_weights() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        mask = torch.ones(5, 5).triu(1).bool()
        return m.a(t, t, t, need_weights=False, attn_mask=mask, is_causal=True)[0]

    return Function(forward, a=nn.MultiheadAttention(16, 4, batch_first=True)), (x(2, 5, 16),)


class _GroupedQuery(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(32)
        self.q, self.o = nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False)
        self.k, self.v = nn.Linear(32, 16, bias=False), nn.Linear(32, 16, bias=False)
        self.rates: Tensor
        self.register_buffer("rates", 1e4 ** -(torch.arange(0, 8, 2) / 8), persistent=False)

    @staticmethod
    def rotated(t: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = t.chunk(2, -1)
        return t * cos + torch.cat([-second, first], -1) * sin

    def forward(self, t: Tensor) -> Any:
        batch, length, _ = t.shape
        h = self.norm(t)
        angles = torch.outer(torch.arange(length, device=t.device).float(), self.rates)
        angles = torch.cat([angles, angles], -1)
        q, k, v = (
            p(h).view(batch, length, -1, 8).transpose(1, 2) for p in (self.q, self.k, self.v)
        )
        q, k = (self.rotated(p, angles.cos(), angles.sin()) for p in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return t + self.o(y.transpose(1, 2).reshape(batch, length, 32))


@model
def grouped_query_attention_with_rotary_positions() -> Subject:
    return _GroupedQuery(), (x(2, 7, 32),)


@model
def attention_with_a_relative_position_table() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        distance = torch.arange(5)[:, None] - torch.arange(5)[None] + 4
        return F.scaled_dot_product_attention(t, t, t, attn_mask=m.table[distance])

    return Function(forward, table=weight(9)), (x(2, 3, 5, 8),)


@model
def attention_by_hand() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        return (m.q(t) @ m.k(t).transpose(-2, -1) / 4).softmax(-1) @ m.v(t)

    parts = {name: nn.Linear(8, 8) for name in "qkv"}
    return Function(forward, **parts), (x(2, 5, 8),)


class _ConvNext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.LayerNorm(8)
        self.wide, self.narrow, self.scale = nn.Linear(8, 32), nn.Linear(32, 8), weight(8)

    def forward(self, t: Tensor) -> Any:
        y = self.norm(self.depthwise(t).permute(0, 2, 3, 1))
        y = self.narrow(F.gelu(self.wide(y))) * self.scale
        return t + y.permute(0, 3, 1, 2)


@model
def convnext_block() -> Subject:
    return _ConvNext(), (x(1, 8, 14, 14),)


@model
def squeeze_and_excite() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        return t * torch.sigmoid(m.b(F.relu(m.a(t.mean((2, 3), keepdim=True)))))

    return Function(forward, a=nn.Conv2d(8, 2, 1), b=nn.Conv2d(2, 8, 1)), (x(1, 8, 6, 6),)


@model
def shuffles_and_resizes() -> Subject:
    layers = (nn.PixelShuffle(2), nn.PixelUnshuffle(2), nn.ChannelShuffle(2))
    resize = nn.Upsample(scale_factor=2, mode="bilinear"), nn.Upsample(scale_factor=2)
    return nn.Sequential(nn.Conv2d(3, 12, 3), *layers, *resize), (x(1, 3, 8, 8),)


@model
def sampling_at_computed_places() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        places = m.places(t).permute(0, 2, 3, 1).tanh()
        return F.grid_sample(m.c(t), places, align_corners=False)

    parts = {"c": nn.Conv2d(3, 4, 1), "places": nn.Conv2d(3, 2, 1)}
    return Function(forward, **parts), (x(1, 3, 8, 8),)


@model
def fourier_transform() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        return m.l(torch.fft.irfft(torch.fft.rfft(t) * 2, n=16))

    return Function(forward, l=nn.Linear(16, 4)), (x(2, 16),)


@model
def complex_numbers() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        turned = torch.complex(m.l(t), t) * torch.polar(torch.ones_like(t), t)
        return torch.view_as_real(turned).abs().sum(-1)

    return Function(forward, l=nn.Linear(16, 16)), (x(2, 16),)


@model
def scatter_of_computed_rows() -> Subject:
    def forward(m: Any, t: Tensor, index: Tensor) -> Any:
        zeros = torch.zeros(5, 8, device=t.device)
        return zeros.scatter_add(0, index[:, None].expand(-1, 8), m.l(t))

    index = torch.tensor([0, 1, 2, 3, 4, 0])
    return Function(forward, l=nn.Linear(8, 8)), (x(6, 8), index)


@model
def bag_of_words() -> Subject:
    net = nn.Sequential(nn.EmbeddingBag(20, 8, mode="sum"), nn.Linear(8, 2))
    return net, (torch.zeros(3, 4, dtype=torch.int64),)


@model
def language_model_with_tied_weights() -> Subject:
    def forward(m: Any, tokens: Tensor) -> Any:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return m.head(m.embedding(tokens) + m.places(places))

    embedding, head = nn.Embedding(50, 16), nn.Linear(16, 50, bias=False)
    head.weight = embedding.weight
    net = Function(forward, embedding=embedding, places=nn.Embedding(6, 16), head=head)
    return net, (torch.zeros(2, 6, dtype=torch.int64),)


@model
def normalisations() -> Subject:
    norms = nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True), nn.LocalResponseNorm(2)
    last = nn.BatchNorm2d(8, track_running_stats=False)
    return nn.Sequential(nn.Conv2d(3, 8, 3), *norms, last), (x(1, 3, 8, 8),)


@model
def parametrized_weights() -> Subject:
    conv = parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    linear = parametrizations.spectral_norm(nn.Linear(6, 4))
    return nn.Sequential(conv, linear, nn.utils.spectral_norm(nn.Linear(4, 4))), (x(1, 3, 8, 8),)


@model
def lstm() -> Subject:
    return nn.LSTM(6, 8, 2, bidirectional=True, batch_first=True, proj_size=4), (x(2, 5, 6),)


@model
def gru() -> Subject:
    return nn.GRU(6, 8, 2, bidirectional=True), (x(5, 2, 6),)


@model
def rnn_without_a_batch() -> Subject:
    return nn.RNN(6, 8), (x(5, 6),)


@model
def packed_sequences() -> Subject:
    def forward(m: Any, t: Tensor, lengths: Tensor) -> Any:
        packed = rnn.pack_padded_sequence(t, lengths, batch_first=True, enforce_sorted=False)
        return rnn.pad_packed_sequence(m.l(packed)[0], batch_first=True)[0]

    lengths = torch.tensor([3, 5, 2])
    return Function(forward, l=nn.LSTM(6, 8, batch_first=True)), (x(3, 5, 6), lengths)


@model
def cells_in_a_loop() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        h = c = g = t.new_zeros(len(t), 8)
        steps = []
        for step in t.unbind(1):
            h, c = m.lstm(step, (h, c))
            g = m.gru(h, g)
            steps.append(m.rnn(g))
        return torch.stack(steps, 1)

    cells = {"lstm": nn.LSTMCell(6, 8), "gru": nn.GRUCell(8, 8), "rnn": nn.RNNCell(8, 4)}
    return Function(forward, **cells), (x(2, 5, 6),)


class _UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(16, 2, 1)

    def forward(self, t: Tensor) -> Any:
        a = F.relu(self.first(t))
        b = F.relu(self.second(F.max_pool2d(a, 2)))
        return self.out(torch.cat([self.up(b), a], 1))


@model
def unet() -> Subject:
    return _UNet(), (x(1, 3, 16, 16),)


@model
def einsum_of_two_activations() -> Subject:
    return Function(lambda m, q, k: torch.einsum("bhid,bhjd->bhij", q, k)), (
        x(2, 3, 4, 5),
        x(2, 3, 6, 5),
    )


@model
def einsum_with_a_weight() -> Subject:
    net = Function(lambda m, t: torch.einsum("bnd,hde->bhne", t, m.w), w=weight(3, 8, 5))
    return net, (x(2, 4, 8),)


@model
def one_matrix_for_each_expert() -> Subject:
    return Function(lambda m, t: torch.bmm(t, m.w), w=weight(2, 4, 5)), (x(2, 3, 4),)


@model
def weight_on_the_left() -> Subject:
    return Function(lambda m, t: m.w @ t, w=weight(5, 4)), (x(2, 4, 7),)


@model
def bilinear() -> Subject:
    return nn.Bilinear(3, 4, 5), (x(2, 3), x(2, 4))


@model
def convolutions_of_every_rank() -> Subject:
    net = nn.Sequential(
        nn.Conv3d(2, 4, 3),
        nn.Flatten(2, 3),
        nn.Conv2d(4, 4, (3, 1), padding="same", padding_mode="circular"),
        nn.Flatten(2),
        nn.Conv1d(4, 6, 4, padding="same", dilation=2),
        nn.ConvTranspose1d(6, 2, 3, stride=2, output_padding=1),
    )
    return net, (x(1, 2, 6, 6, 6),)


@model
def poolings() -> Subject:
    net = nn.Sequential(
        *(nn.MaxPool2d(2), nn.AvgPool2d(3, 1, 1), nn.LPPool2d(2, 2), nn.AdaptiveAvgPool2d((3, 2))),
        *(nn.AdaptiveMaxPool2d(2), nn.FractionalMaxPool2d(1, output_size=2), nn.Flatten(2)),
        *(nn.MaxPool1d(2), nn.AvgPool1d(2)),
    )
    return net, (x(1, 2, 32, 32),)


@model
def activations() -> Subject:
    classes = (
        *(nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid),
        *(nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.LeakyReLU, nn.Mish, nn.Softplus, nn.LogSigmoid),
        *(nn.Softsign, nn.Tanhshrink, nn.Hardshrink, nn.Softshrink, nn.RReLU, nn.Hardtanh),
    )
    last = nn.Softmax(-1), nn.LogSoftmax(-1), nn.Softmin(-1), nn.GLU(), nn.Threshold(0, 0)
    return nn.Sequential(nn.Linear(4, 4), *(make() for make in classes), *last), (x(2, 4),)


@model
def branch_on_data() -> Subject:
    parts = {"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}
    return Function(lambda m, t: m.a(t) if t.sum() > 0 else m.b(t), **parts), (x(1, 4),)


@model
def length_from_data() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        return m.l(t[t[:, 0] > 0]).sum()

    return Function(forward, l=nn.Linear(4, 4)), (x(8, 4),)


@model
def branch_of_a_compiler() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        return torch.cond(t.sum() > 0, lambda v: m.a(v), lambda v: m.b(v), (t,))

    return Function(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4)), (x(1, 4),)


@model
def dicts_in_and_out() -> Subject:
    def forward(m: Any, batch: dict[str, Tensor]) -> Any:
        return {"y": m.l(batch["x"]), "z": [batch["mask"], {"again": batch["x"] + 1}]}

    return Function(forward, l=nn.Linear(4, 4)), ({"x": x(1, 4), "mask": x(2)},)


@model
def tensors_as_attributes() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        return m.l(t) * m.scale + m.shifts[0]

    return Function(forward, l=nn.Linear(4, 4), scale=x(4), shifts=[x(4)]), (x(1, 4),)


@model
def modules_in_a_plain_list() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        return m.layers[0](t) @ m.weights["a"]

    return Function(forward, layers=[nn.Linear(4, 4)], weights={"a": weight(4, 4)}), (x(1, 4),)


@model
def factory_without_a_device() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        out = torch.zeros(3, 4)
        for i in range(3):
            out[i] = m.l(t)[0]
        return out + torch.arange(4)

    return Function(forward, l=nn.Linear(4, 4)), (x(1, 4),)


@model
def through_numpy() -> Subject:
    return Function(lambda m, t: m.l(torch.from_numpy(t.numpy() * 2)), l=nn.Linear(4, 4)), (
        x(1, 4),
    )


@model
def gradient_in_forward() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        with torch.enable_grad():
            t = t.detach().requires_grad_(True)
            return torch.autograd.grad(m.l(t).pow(2).sum(), t)[0]

    return Function(forward, l=nn.Linear(4, 4)), (x(1, 4),)


@model
def vectorised() -> Subject:
    return Function(lambda m, t: torch.func.vmap(m.l)(t), l=nn.Linear(4, 3)), (x(5, 4),)


@model
def checkpointed() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        return checkpoint(m.l, t, use_reentrant=False)

    return Function(forward, l=nn.Linear(4, 3)), (x(2, 4),)


@model
def autocast() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        with torch.autocast(t.device.type, torch.bfloat16):
            return m.l(t).float()

    return Function(forward, l=nn.Linear(4, 3)), (x(2, 4),)


@model
def inference_mode_inside() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        with torch.inference_mode():
            return F.relu(m.l(m.c(t).mean((2, 3))))

    return Function(forward, c=nn.Conv2d(3, 4, 3), l=nn.Linear(4, 3)), (x(2, 3, 8, 8),)


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        return t.sign()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


_sign: Callable[[Tensor], Tensor] = _Sign.apply


@model
def own_autograd_function() -> Subject:
    return Function(lambda m, t: _sign(m.l(t)), l=nn.Linear(4, 3)), (x(2, 4),)


@model
def scripted() -> Subject:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inside = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    return nn.Sequential(inside, nn.Linear(4, 2)), (x(3, 4),)


@model
def jit_traced() -> Subject:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(net, x(1, 3, 8, 8)), (x(1, 3, 8, 8),)


@model
def graph_module() -> Subject:
    return torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), (x(1, 3, 8, 8),)


@model
def noise() -> Subject:
    return Function(lambda m, t: m.l(t + torch.randn_like(t)), l=nn.Linear(4, 2)), (x(2, 4),)


@model
def no_tensor_as_input() -> Subject:
    net = Function(lambda m: m.l(m.z), l=nn.Linear(4, 3))
    net.register_buffer("z", x(1, 4))
    return net, ()


@model
def cache_of_keys() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        m.cache[:, m.length : m.length + 1] = m.l(t)
        m.length += 1
        seen = m.cache[:, None, : m.length]
        return F.scaled_dot_product_attention(t[:, None], seen, seen)

    net = Function(forward, l=nn.Linear(4, 4), length=3)
    net.register_buffer("cache", torch.zeros(1, 8, 4))
    return net, (x(1, 1, 4),)


@model
def nested_tensors() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        nested = torch.nested.nested_tensor([t[0], t[1, :2]])
        return m.l(nested).to_padded_tensor(0.0)

    return Function(forward, l=nn.Linear(4, 4)), (x(2, 3, 4),)


@model
def half_precision_channels_last() -> Subject:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).half()
    image = x(1, 3, 8, 8).half().to(memory_format=torch.channels_last)
    for parameter in net.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return net, (image,)


@model
def an_exception_caught() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        try:
            y = m.a(t)
        except RuntimeError:
            y = m.b(t)
        return m.c(y)

    parts = {"a": nn.Linear(3, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 2)}
    return Function(forward, **parts), (x(2, 4),)


@model
def loss_inside() -> Subject:
    def forward(m: Any, t: Tensor, target: Tensor) -> Any:
        return F.cross_entropy(m.l(t), target)

    return Function(forward, l=nn.Linear(4, 4)), (x(2, 4), torch.zeros(2, dtype=torch.int64))


@model
def windows() -> Subject:
    def forward(m: Any, t: Tensor) -> Any:
        return F.unfold(torch.roll(m.c(t), (1, 1), (2, 3)).unfold(2, 2, 2).contiguous()[..., 0], 2)

    return Function(forward, c=nn.Conv2d(3, 4, 1)), (x(1, 3, 8, 8),)
