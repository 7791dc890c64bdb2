"""Models of transformers: saving, loading, ties, resizing, generation, `Trainer`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import paramdesc as P
from paramdesc.parametrizations import Positive, Sphere, orthogonal, spectral_norm

pytest.importorskip("transformers", reason="needs transformers: the extra `integrations`")

from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
)

from paramdesc.integrations import transformers as T

IDS = torch.randint(40, (32, 8), generator=torch.Generator().manual_seed(0))
SIZES: dict[str, Any] = {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 1}
GPT2: dict[str, Any] = {
    "*.c_attn.weight": orthogonal,
    "*.c_proj.weight": spectral_norm,
    "transformer.wte.weight": Sphere,
    "*.ln_1.weight": Positive,
}


def make_plain() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=16, n_head=2, n_positions=16, **SIZES)
    return GPT2LMHeadModel(config).eval()


def make() -> Any:
    model = make_plain()
    P.parametrize(model, GPT2)
    return model


def make_llama() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        **SIZES,
    )
    model = LlamaForCausalLM(config).eval()
    P.parametrize(model, {"*.q_proj.weight": orthogonal, "*.up_proj.weight": spectral_norm})
    return model


class Registering(GPT2LMHeadModel):  # type: ignore[misc]
    """A model that registers its maps in `__init__`."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        P.parametrize(self, {"*.c_attn.weight": orthogonal, "*.mlp.c_proj.weight": spectral_norm})


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(IDS).logits  # type: ignore[no-any-return]


def chains_of_embeddings(model: Any) -> list[Any]:
    return [model.transformer.wte.parametrizations.weight, model.lm_head.parametrizations.weight]


def test_a_model_that_registers_in_init_loads_its_weights(tmp_path: Path) -> None:
    config = make_plain().config
    model = Registering(config).eval()
    model.save_pretrained(tmp_path)
    loaded = Registering.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    torch.testing.assert_close(logits(loaded), logits(model))


@pytest.mark.parametrize("model_class", [GPT2LMHeadModel, AutoModelForCausalLM])
def test_a_model_that_is_parametrized_later_loads_from_its_folder(
    model_class: Any, tmp_path: Path
) -> None:
    model = make()
    T.save_pretrained(model, tmp_path)
    loaded = T.from_pretrained(model_class, tmp_path)
    assert type(loaded) is GPT2LMHeadModel
    assert P.get_parametrizations(loaded).names() == P.get_parametrizations(model).names()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    torch.testing.assert_close(logits(loaded), logits(model))


def test_llama_loads_in_shards_and_in_another_dtype(tmp_path: Path) -> None:
    model = make_llama()
    T.save_pretrained(model, tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = T.from_pretrained(LlamaForCausalLM, tmp_path, dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    torch.testing.assert_close(logits(loaded).float(), logits(model), atol=0.05, rtol=0.05)


def test_a_plain_folder_loads_as_usual(tmp_path: Path) -> None:
    T.save_pretrained(make_plain(), tmp_path)
    assert not (tmp_path / "parametrizations.json").exists()
    assert not P.is_parametrized(T.from_pretrained(GPT2LMHeadModel, tmp_path).transformer.wte)


def test_the_base_model_loads_and_gives_its_weights_back(tmp_path: Path) -> None:
    model = make()
    T.save_pretrained(model, tmp_path)
    with pytest.warns(UserWarning, match="lm_head.weight"):
        base = T.from_pretrained(AutoModel, tmp_path)
    T.save_pretrained(base, tmp_path / "base")
    loaded = T.from_pretrained(GPT2LMHeadModel, tmp_path / "base")
    torch.testing.assert_close(logits(loaded), logits(model))


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    model = make()
    T.save_pretrained(model, tmp_path)
    loaded = T.from_pretrained(GPT2LMHeadModel, tmp_path)
    for each in (loaded, T.keep_ties(model)):
        each.tie_weights()
        first, second = chains_of_embeddings(each)
        assert first is second
    torch.testing.assert_close(logits(loaded), logits(model))


def test_resizing_keeps_the_parametrization() -> None:
    model = make()
    before = logits(model)
    T.resize_token_embeddings(model, 50)
    first, second = chains_of_embeddings(model)
    assert first is second
    assert model.lm_head.weight.shape == (50, 16)
    torch.testing.assert_close(model.lm_head.weight.norm(dim=1), torch.ones(50))
    torch.testing.assert_close(logits(model)[..., :40], before)


def test_resizing_without_the_helper_drops_it() -> None:
    """What the page warns of."""
    model = make_llama()
    P.register_parametrization(model, "lm_head.weight", Sphere())
    model.resize_token_embeddings(50)
    assert not P.is_parametrized(model.lm_head)


@pytest.mark.parametrize("compiled", [False, True])
def test_generation_reads_each_weight_once(compiled: bool) -> None:
    model = make()
    expected = model.generate(IDS[:1, :4], max_new_tokens=6, do_sample=False)
    scope = P.auto_cache(model)
    if compiled:
        model.forward = torch.compile(model.forward, backend="eager")
    options = {"cache_implementation": "static"} if compiled else {}
    for _ in range(2):
        found = model.generate(IDS[:1, :4], max_new_tokens=6, do_sample=False, **options)
        assert torch.equal(found, expected)
    assert scope.misses == len(P.get_parametrizations(model))
    assert scope.hits > 0


def train(folder: Path, resume: str | None = None, auto: bool = False) -> Any:
    model = make()
    if auto:
        P.auto_cache(model)
    arguments = TrainingArguments(
        str(folder),
        max_steps=4,
        save_steps=2,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        gradient_checkpointing=True,
        bf16=True,
        use_cpu=True,
        optim="adamw_torch_fused",
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        report_to=[],
        disable_tqdm=True,
    )
    data = [{"input_ids": row, "labels": row} for row in IDS]
    callbacks = [T.SaveParametrizations()]
    Trainer(model, arguments, train_dataset=data, callbacks=callbacks).train(resume)
    return model.eval()


def test_trainer_resumes_exactly_and_its_checkpoints_load(tmp_path: Path) -> None:
    model = train(tmp_path / "whole")
    resumed = train(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-2"))
    cached = train(tmp_path / "cached", auto=True)
    loaded = T.from_pretrained(GPT2LMHeadModel, tmp_path / "whole" / "checkpoint-4")
    start = dict(make().named_parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
        assert torch.equal(loaded.state_dict()[name], tensor), name
        torch.testing.assert_close(cached.state_dict()[name], tensor)
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, start[n])]
    assert len(moved) == len(start)


def test_a_map_that_json_cannot_describe_is_refused_before_anything_is_saved(
    tmp_path: Path,
) -> None:
    model = make_llama()
    P.register_parametrization(model, "lm_head.weight", torch.exp)
    with pytest.raises(ValueError, match="lm_head"):
        T.save_pretrained(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_file_is_readable(tmp_path: Path) -> None:
    T.save_pretrained(make(), tmp_path)
    stored = json.loads((tmp_path / "parametrizations.json").read_text())
    assert stored["tensors"]["lm_head.weight"] == {"tied": "transformer.wte.weight"}
    described = stored["tensors"]["transformer.h.0.mlp.c_proj.weight"]["maps"]
    assert [each["map"] for each in described] == ["SpectralNorm"]


def test_resizing_bert_keeps_the_parametrization_and_its_other_ties() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    model = BertForMaskedLM(config).eval()
    P.parametrize(model, {"bert.embeddings.word_embeddings.weight": Sphere})
    before = logits(model)
    T.resize_token_embeddings(model, 50)
    head = model.cls.predictions
    assert head.bias.shape == (50,)
    assert head.decoder.bias is head.bias
    torch.testing.assert_close(head.decoder.weight.norm(dim=1), torch.ones(50))
    torch.testing.assert_close(logits(model)[..., :40], before)


def test_resizing_a_saved_t5_keeps_all_of_its_ties(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=40,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
        tie_word_embeddings=True,
    )
    model = T5ForConditionalGeneration(config).eval()
    P.parametrize(model, {"shared.weight": Sphere})
    T.save_pretrained(model, tmp_path)
    T.resize_token_embeddings(model, 50)
    places = (model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens, model.lm_head)
    assert len({id(each.parametrizations.weight) for each in places}) == 1
    assert model.lm_head.weight.shape == (50, 16)
    T.save_pretrained(model, tmp_path)
    loaded = T.from_pretrained(T5ForConditionalGeneration, tmp_path)
    torch.testing.assert_close(loaded.lm_head.weight, model.lm_head.weight)


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    T.save_pretrained(make(), tmp_path, is_main_process=False)
    assert not (tmp_path / "parametrizations.json").exists()


def test_a_trainer_starts_only_if_its_checkpoints_can_be_described() -> None:
    model = make_llama()
    P.register_parametrization(model, "lm_head.weight", torch.exp)
    with pytest.raises(ValueError, match="lm_head"):
        T.SaveParametrizations().on_train_begin(None, None, None, model=model)


class RegisteringTied(GPT2LMHeadModel):  # type: ignore[misc]
    """A model that registers on its tied embeddings in `__init__`."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        P.parametrize(self, {"transformer.wte.weight": Sphere, "*.c_attn.weight": orthogonal})
        T.keep_ties(self)


def test_a_model_that_registers_on_tied_embeddings_in_init_loads(tmp_path: Path) -> None:
    model = RegisteringTied(make_plain().config).eval()
    model.save_pretrained(tmp_path / "plain")
    T.save_pretrained(model, tmp_path / "recipe")
    for loaded in (
        RegisteringTied.from_pretrained(tmp_path / "plain"),
        T.from_pretrained(RegisteringTied, tmp_path / "recipe"),
        T.from_pretrained(GPT2LMHeadModel, tmp_path / "recipe"),
    ):
        first, second = chains_of_embeddings(loaded)
        assert first is second
        torch.testing.assert_close(logits(loaded), logits(model))


def test_a_baked_model_gets_the_names_of_its_ties_back(tmp_path: Path) -> None:
    model = make()
    names = dict(model._tied_weights_keys), dict(model.all_tied_weights_keys)
    T.save_pretrained(model, tmp_path)
    assert model._tied_weights_keys != names[0]
    T.keep_ties(P.bake(model).model)
    assert (model._tied_weights_keys, model.all_tied_weights_keys) == names
    model.tie_weights()
    model.save_pretrained(tmp_path / "baked")
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path / "baked")
    torch.testing.assert_close(logits(loaded), logits(model))
    model.resize_token_embeddings(50)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_a_recipe_beside_a_plain_checkpoint_is_refused(tmp_path: Path) -> None:
    model = make()
    T.save_pretrained(model, tmp_path)
    T.keep_ties(P.bake(model).model).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="none of the originals"):
        T.from_pretrained(GPT2LMHeadModel, tmp_path)


def test_a_parametrized_checkpoint_without_a_recipe_is_noticed(tmp_path: Path) -> None:
    model = make()
    T.save_pretrained(model, tmp_path)
    (tmp_path / "parametrizations.json").unlink()
    with pytest.warns(UserWarning, match=r"has no parametrizations\.json"):
        T.from_pretrained(GPT2LMHeadModel, tmp_path)


def test_loading_info_is_given_if_asked_for(tmp_path: Path) -> None:
    for model in (make(), make_plain()):
        T.save_pretrained(model, tmp_path)
        loaded, info = T.from_pretrained(GPT2LMHeadModel, tmp_path, output_loading_info=True)
        assert not info["missing_keys"]
        torch.testing.assert_close(logits(loaded), logits(model))


def test_an_auto_class_finds_the_config_where_the_weights_are(tmp_path: Path) -> None:
    model = make()
    T.save_pretrained(model, tmp_path / "inner")
    choices: list[Any] = [{}, {"config": str(tmp_path)}]
    for options in choices:
        loaded = T.from_pretrained(AutoModelForCausalLM, tmp_path, subfolder="inner", **options)
        torch.testing.assert_close(logits(loaded), logits(model))
