# SPDX-License-Identifier: Apache-2.0
"""The table of options and the list of commands: complete, checked once, passed on by make."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

from nuq import dispatch
from nuq.board.bundle import MISSING
from nuq.formats import commands, settings
from nuq.formats.commands import COMMANDS, GROUPS, function, taken
from nuq.formats.errors import UserError, run_cli
from nuq.formats.options import SCHEME_OPTIONS, Options, default_text, table, value
from tests.checkout import ROOT, error_line, make, python

OPTIONS = table()


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_a_help_a_default_and_a_command(name):
    _, entry, default = OPTIONS[name]
    assert entry.help and default_text(name)
    assert [command for command in COMMANDS if name in taken(command)]
    if isinstance(default, str) and entry.choices:
        assert default in entry.choices


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_function_and_a_help(command, capsys):
    assert function(command).__doc__
    assert commands.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert COMMANDS[command].help in text
    assert [line.split()[0] for line in text.splitlines()[4:] if line[:1].strip()] == [
        *taken(command)
    ]
    checks = COMMANDS[command].checks
    assert checks is None or callable(getattr(commands.module(command), checks))


def test_groups_hold_options_and_no_option_stands_twice():
    for _, names in GROUPS.values():
        assert set(names.split()) <= set(OPTIONS)
    for entry in COMMANDS.values():
        assert all(word in GROUPS or word in OPTIONS for word in entry.takes.split())
    for command in COMMANDS:
        assert len(taken(command)) == len(set(taken(command))) and set(taken(command)) <= {*OPTIONS}


REFUSED = [
    ("csim BITZ=3", "csim must have options that exist, not BITZ; did you mean BITS?; `nuq csim"),
    ("csim net=digits", "csim must have options that exist, not net; did you mean NET?; `nuq csi"),
    ("help cism", "help must have ALL=1 or a command, not cism; did you mean csim?"),
    ("csim NET=digit", "NET must be one of alexnet, cifar10, digits, vgg16, not 'digit'; did you "),
    ("csim PART=xc7z02", "PART must be one of XC7Z020, XCZU3EG, XC7Z045, XCK26, XCZU7EV or a TOML"),
    ("csim NET=digits SCHEME=kqn", "SCHEME must be one of knq, enq, uniform, optimal, dynamic, "),
    ("csim NET=digits REFINE=equalize", "REFINE must be all, none or of equalise, sensitivity, "),
    ("csim PRESET=acurate", "PRESET must be one of accurate, fast, "),
    ("cism", "the command must be one that exists, not cism; did you mean csim?; `nuq help "),
    ("csim digits", "digits must be NAME=VALUE; see `nuq csim --help`"),
    ("quantize PE=16", "PE must go with codegen, csim, explore, "),
    ("finetune BATCH=8", "BATCH of finetune must be written MINIBATCH now; set MINIBATCH=VALUE"),
    ("finetune DISTILL=1", "DISTILL of finetune must be written DISTIL now; set DISTIL=VALUE"),
    ("csim IMAGES=0", "IMAGES must be an integer of 1 or more, not '0'"),
    ("csim IMAGES=two", "IMAGES must be an integer of 1 or more, not 'two'"),
    ("csim SCALE=1/0", "SCALE must be a number above 0, not '1/0'"),
    ("csim PE=1.5", "PE must be an integer, not '1.5'"),
    ("explore LIMIT=1.01", "LIMIT must be a number above 0 and at most 1, not '1.01'"),
    ("explore CLOCK=nan", "CLOCK must be a number from 1 to 1000, not 'nan'"),
    ("csim FM=chips", "FM must be one of auto, chip, ddr, not 'chips'; did you mean chip?"),
    ("csim SANITIZE=yes", "SANITIZE must be 1 or 0, not 'yes'"),
    ("hls HLS_STEPS=csim,x", "HLS_STEPS must be one of csim, csynth, cosim, export, not 'x'"),
    ("measure CLNQ=8,0", "CLNQ must be an integer of 1 or more, not '0'"),
    # before anything is quantized
    ("csim PART=xc9", "PART must be one of XC7Z020, "),
    ("csim CLOCK=1000", "CLOCK must be 1..388.2 MHz, what block RAM of XC7Z020 can do, not 1000"),
    ("explore PART=xczu7ev CLOCK=800", "CLOCK must be 1..738 MHz"),
    ("csim SIMD=12", "SIMD must be a positive multiple of 8, not 12"),
    ("bundle BOARD=pynqz2", "BOARD must be one of kr260, "),
    ("bundle BOARD=zcu104", "BOARD zcu104 has an XCZU7EV, but the design is for an XC7Z020"),
    ("bundle BITSTREAM=no.bit", "no.bit must exist; BITSTREAM= takes the path of a .bit"),
    ("bitstream BOARD=zx", "BOARD must be one of kr260, "),
    ("bitstream NET=digits", "BOARD must be set, as in BOARD=pynq-z2"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "text"), REFUSED, ids=[words for words, _ in REFUSED])
def test_a_bad_command_line_ends_in_one_sentence(words, text, capsys):
    assert run_cli(lambda argv: commands.main(argv, dispatch.run), words.split()) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {text}") and said.err.count("\n") == 1 and not said.out


@pytest.mark.parametrize("program", ["make", "nuq"])
def test_messages_name_commands_as_the_program_was_called(program, capsys, tmp_path):
    flag = ["--make"] * (program == "make")

    def said(*words: str) -> str:
        run_cli(lambda argv: commands.main(argv, dispatch.run), [*flag, *words])
        return capsys.readouterr().err

    assert said("compare", f"A={tmp_path}", f"B={tmp_path}").endswith(
        f"report.json must exist; run `{program} codegen` first\n"
    )
    listing = "`make help ALL=1`" if program == "make" else "`nuq csim --help`"
    assert said("csim", "BITZ=3").endswith(f"did you mean BITS?; {listing} lists them\n")
    settings.write(tmp_path, {"NET": "digits"})
    assert f"; `{program} " in (tmp_path / settings.FILE).read_text()


def test_no_message_has_a_commands_name_of_its_own():
    """formats.errors.call words them; a bundle's README has the same bytes whoever makes it."""
    name = re.compile(rf"\b(?:make|nuq) (?:{'|'.join(sorted(COMMANDS, key=len)[::-1])})\b")
    found = []
    for folder in ("formats", "model_prep", "codegen", "board", "nuq"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            found += [
                f"{path.relative_to(ROOT)}: {node.value}"
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
                and id(node) not in docs and name.search(node.value)
            ]  # fmt: skip
    assert [text for text in found if text.partition(": ")[2] not in MISSING] == []


MISSPELT = ("digit digits", "xc7z02 XC7Z020", "kqn knq", "equalize equalise", "acurate accurate",
            "pynqz2 pynq-z2", "BITZ BITS", "net NET", "cism csim", "chips chip")  # fmt: skip


@pytest.mark.parametrize("pair", MISSPELT)
def test_the_nearest_right_word_is_named(pair, capsys):
    wrong, right = pair.split()
    words = next(words for words, _ in REFUSED if re.search(rf"\b{wrong}\b", words))
    run_cli(lambda argv: commands.main(argv, dispatch.run), words.split())
    assert f"; did you mean {right}?" in capsys.readouterr().err


def test_a_file_beside_a_missing_one_is_named(tmp_path):
    (tmp_path / "model.onnx").write_text("")
    with pytest.raises(UserError, match=r"not .*/modle.onnx; did you mean .*/model.onnx\?"):
        function("init")(Options(net=f"{tmp_path}/modle.onnx", config=tmp_path / "a.toml"))


def test_values_and_defaults():
    options = commands.parse("hls", ["NET=digits", "IMAGES=", "PE=16", "HLS_STEPS=export,csynth"])
    assert options == replace(Options(), net="digits", pe=16, hls_steps=("csynth", "export"))
    assert (options.folder, options.test_images) == (Path("build/digits"), 360)
    assert replace(options, net="a/b.onnx", out=None).folder == Path("build/b")
    assert replace(options, data="others.npz").test_images == 1
    assert (value("SANITIZE", "0"), value("AVERAGE", "3,4.5")) == (False, (3.0, 4.5))
    assert value("SCALE", "1/255") == 1 / 255


def test_make_leaves_out_what_other_commands_take():
    assert commands.parse("quantize", ["NET=digits", "PE=16"], lenient=True).pe is None
    with pytest.raises(UserError, match="^BATCH of finetune must be written MINIBATCH now"):
        commands.parse("finetune", ["BATCH=8"], lenient=True)


def dry_run(*words: str, **environment: str) -> str:
    """What `make -n` would run."""
    return make("-n", *words, status=0, **environment).stdout


def test_make_passes_every_option_on():
    given = [f"{name}=a b" for name in OPTIONS]
    line = dry_run("csim", *given)
    assert re.findall(r"([A-Z_]+)='a b'", line) == list(OPTIONS)
    assert "NET='it'\\''s'" in dry_run("csim", "NET=it's")
    assert "BITZ='3'" in dry_run("csim", "BITZ=3") and "NET=''" in dry_run("csim", "NET=")
    assert "DATA='a b=c'" in dry_run("csim", "DATA=a b=c")
    # nuq reads the environment itself
    assert dry_run("csim", "CXX=clang++", N="3", PE="16").strip().endswith("--make csim")


def test_make_refuses_options_of_other_commands_unless_it_has_several():
    assert error_line(make("tools", "BITS=3")).startswith("error: BITS must go with quantize, ")
    assert "--make --several tools BITS='3'" in dry_run("tools", "parts", "BITS=3")


def test_make_has_every_command():
    for command in COMMANDS:
        assert f"-m nuq --make {command}" in dry_run(command)


def test_the_table_repeats_what_is_decided_elsewhere():
    """Where a plan file may say it, too, the default stands with the plan."""
    from nuq.model_prep import data
    from nuq.model_prep.quantize.plan import DEFAULTS
    from nuq.model_prep.quantize.quantizers import OWNERS, SCHEMES

    for name in ("rule", "variant", "qm", "weight_scheme", "refine", "distil_steps", "seed"):
        assert default_text(name.upper()) == str(DEFAULTS[name])
    assert all(scheme in OPTIONS["SCHEME"][1].help for scheme in SCHEMES)
    assert {name.lower() for name in SCHEME_OPTIONS.split()} <= set(OWNERS)
    assert Options(net="digits").test_images == data.DIGITS_TEST


def test_nothing_is_imported_before_it_is_needed():
    code = "import sys, nuq.__main__; print({'numpy', 'torch', 'jinja2'} & set(sys.modules))"
    assert python("-c", code).stdout == "set()\n"
