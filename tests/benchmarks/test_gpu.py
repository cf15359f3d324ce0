# SPDX-License-Identifier: Apache-2.0
"""The plan for a GPU, rehearsed on a CPU with tiny sizes: every part runs, reports all and goes on where it was."""

import json
import sys

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from transformers import masking_utils

from benchmarks import gpu
from benchmarks.gpu import CASES, main
from evaluation.position.noise import noise_images
from modeling_alibi_dinov2 import attention_alibi_dinov2
from training.import_onnx_teacher import teacher_processor
from training.journal import read_metrics

SMALL = ("--device", "cpu", "--dtype", "float32", "--layers", 1, "--width", 64)


@pytest.fixture
def run(monkeypatch, capsys):
    """`run(*words)`: exit status and what is printed."""

    def status_of(*words) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["gpu", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out + captured.err

    return status_of


@pytest.fixture
def uncompiled_flex(monkeypatch):
    """FlexAttention and its mask without the compiler, which takes longer than all else."""
    create = masking_utils.create_block_mask

    def create_uncompiled(*args, **kwargs):
        return create(*args, **(kwargs | {"_compile": False}))

    def attend(query, key, value, *, score_mod, block_mask, scale, training):
        return flex_attention(query, key, value, score_mod=score_mod, block_mask=block_mask, scale=scale)

    monkeypatch.setattr(masking_utils, "create_block_mask", create_uncompiled)
    monkeypatch.setattr(attention_alibi_dinov2, "compile_friendly_flex_attention", attend)


def test_check_says_what_is_there(run, uncompiled_flex):
    status, text = run("check", "--device", "cpu", "--dtype", "float32")
    for name in ("device", "bfloat16", "flex compiles", "FlashAttention kernel", "accelerate", "datasets"):
        assert name in text
    # Processors without units for bfloat16 lack something.
    assert status == (1 if "NO  bfloat16" in text else 0), text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_check_without_a_gpu_says_so(run):
    status, text = run("check")
    assert status == 1
    assert "NO  device: cuda" in text
    assert "no CUDA device; rehearse with --device cpu" in run("throughput", "--output", "nowhere.json")[1]


def test_throughput_is_of_every_case_and_is_completed(run, tmp_path, uncompiled_flex):
    output = tmp_path / "throughput.json"
    words = ("throughput", *SMALL, "--repeats", 1, "--output", output)
    status, text = run(*words, "--sizes", 28, "--batches", 1)
    assert status == 0, text
    first = json.loads(output.read_text())["comparisons"]
    (rows,) = first.values()
    assert [row["case"] for row in rows] == list(CASES)
    assert all(row["images_per_second"] > 0 for row in rows)
    assert rows[0]["ratio"] == 1
    # float32 sums in another order, one layer.
    assert all(row["difference_to_sdpa"] < 1e-4 for row in rows[3:])
    assert run(*words, "--sizes", 28, 42, "--batches", 1, 2)[0] == 0
    second = json.loads(output.read_text())["comparisons"]
    assert len(second) == 4
    assert {key: second[key] for key in first} == first


def test_what_does_not_fit_into_memory_is_said_and_the_rest_is_measured(run, tmp_path, monkeypatch, uncompiled_flex):
    measure = gpu.peak_bytes

    def short_of_memory(run, device):
        if len(seen) == 1:
            seen.append("failed")
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append("fine")
        return measure(run, device)

    seen: list[str] = []
    monkeypatch.setattr(gpu, "peak_bytes", short_of_memory)
    output = tmp_path / "throughput.json"
    status, text = run("throughput", *SMALL, "--sizes", 28, "--batches", 1, "--repeats", 1, "--output", output)
    assert status == 0
    assert "| stock_flash | out of memory |" in text
    (rows,) = json.loads(output.read_text())["comparisons"].values()
    assert ["seconds" in row for row in rows] == [True, False, True, True, True]


def test_parity_is_of_features_and_says_that_gradients_are_not_compared_here(run, tmp_path, uncompiled_flex):
    output = tmp_path / "parity.json"
    status, text = run("parity", *SMALL, "--sizes", 56, "--batches", 2, "--output", output)
    assert status == 0, text
    assert "gradients: not compared" in text
    found = json.loads(output.read_text())["parity"]["float32"]["features"]
    assert 0 <= found["relative_difference"] < 1e-4
    assert found["largest"] > 0.1


def test_a_wrong_flex_is_noticed(run, tmp_path, monkeypatch, uncompiled_flex):
    attend = attention_alibi_dinov2.compile_friendly_flex_attention

    def without_bias(query, key, value, *, score_mod, block_mask, scale, training):
        return attend(query, key, value, score_mod=None, block_mask=block_mask, scale=scale, training=training)

    monkeypatch.setattr(attention_alibi_dinov2, "compile_friendly_flex_attention", without_bias)
    assert run("parity", *SMALL, "--sizes", 56, "--output", tmp_path / "parity.json")[0] == 1


def test_distillation_comes_in_pieces(run, tmp_path, tiny_teacher):
    tiny_teacher().save_pretrained(tmp_path / "teacher")
    teacher_processor().save_pretrained(tmp_path / "teacher")
    (tmp_path / "images").mkdir()
    for number, image in enumerate(noise_images(6, 60)):
        image.save(tmp_path / "images" / f"{number}.png")
    stage = {"size": 28, "steps": 3, "batch_size": 2, "learning_rate": 1e-4, "warmup_steps": 0}
    config = {"teacher": str(tmp_path / "teacher"), "images": str(tmp_path / "images"), "stages": [stage]}
    config |= {"validation_count": 2, "validation_sizes": [28], "zero_channels": "none"}
    (tmp_path / "recipe.json").write_text(json.dumps(config))
    words = ("distill", "--config", tmp_path / "recipe.json", "--output", tmp_path / "run", "--minutes")
    pieces = 0
    while not (tmp_path / "run" / "student").exists():
        assert pieces < 4
        # At once over: each piece does the step that it is at.
        status, text = run(*words, 0)
        assert status == 0, text
        pieces += 1
    assert pieces > 1, "it was not stopped"
    assert [entry["step"] for entry in read_metrics(tmp_path / "run" / "metrics.jsonl")][-1] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("throughput", *SMALL, "--sizes", 30, "--output", "x"), "must be multiples of 14"),
        (("parity", *SMALL, "--width", 65, "--output", "x"), "the width one of 64"),
        (("throughput", *SMALL, "--sise", 28, "--output", "x"), "unrecognized arguments"),
        (("distill", "--config", "nowhere.json", "--minutes", 1), "nowhere.json"),
    ],
)
def test_wrong_options_are_named(run, words, message):
    status, text = run(*words)
    assert status == 2
    assert message in text
