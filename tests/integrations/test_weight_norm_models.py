"""Models of transformers with torch's weight norm: adopted, cached, and baked."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P

transformers = pytest.importorskip(
    "transformers", reason="needs transformers: the extra `integrations`"
)


def make_wav2vec2() -> tuple[Any, Any]:
    config = transformers.Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_stride=(5, 2),
        conv_kernel=(10, 3),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    return transformers.Wav2Vec2Model(config), lambda m: m(SOUND).last_hidden_state


def make_encodec() -> tuple[Any, Any]:
    config = transformers.EncodecConfig(
        num_filters=4, hidden_size=16, codebook_dim=16, codebook_size=16, num_lstm_layers=1
    )
    return transformers.EncodecModel(config), lambda m: m.encoder(SOUND[:, None])


def make_vits() -> tuple[Any, Any]:
    config = transformers.VitsConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=1,
        ffn_dim=16,
        flow_size=16,
        spectrogram_bins=9,
        prior_encoder_num_flows=1,
        prior_encoder_num_wavenet_layers=1,
        posterior_encoder_num_wavenet_layers=1,
        upsample_initial_channel=16,
        upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8],
        duration_predictor_num_flows=1,
        use_stochastic_duration_prediction=False,
        wavenet_dilation_rate=1,
    )
    model = transformers.VitsModel(config)
    return model, lambda m: m.flow(torch.ones(1, 16, 5), torch.ones(1, 1, 5))


def make_hifi_gan() -> tuple[Any, Any]:
    config = transformers.SpeechT5HifiGanConfig(
        model_in_dim=8,
        upsample_initial_channel=16,
        upsample_rates=[2, 2],
        upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
    )
    model = transformers.SpeechT5HifiGan(config)
    model.apply_weight_norm()
    return model, lambda m: m(torch.ones(6, 8))


SOUND = torch.randn(1, 800, generator=torch.Generator().manual_seed(0))
MODELS = {
    "Wav2Vec2": make_wav2vec2,
    "EnCodec": make_encodec,
    "VITS": make_vits,
    "HiFi-GAN": make_hifi_gan,
}


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_adopted_and_baked(name: str) -> None:
    torch.manual_seed(0)
    model, call = MODELS[name]()
    model.eval()
    with torch.no_grad():
        before = call(model)
        adopted = P.adopt(copy.deepcopy(model))
        count = len(P.get_parametrizations(adopted))
        assert count > 0
        assert all(type(module).__name__[:12] != "Parametrized" for module in adopted.modules())
        torch.testing.assert_close(call(adopted), before)
        with P.cached(adopted) as scope:
            call(adopted)
            call(adopted)
        assert scope.misses <= count
        assert scope.hits == scope.misses
        torch.testing.assert_close(call(pickle.loads(pickle.dumps(adopted))), before)
        for each in (adopted, model):  # the second one is still torch's
            P.bake(each)
            assert not any(nn.utils.parametrize.is_parametrized(m) for m in each.modules())
            torch.testing.assert_close(call(each), before)
