# SPDX-License-Identifier: Apache-2.0
"""A build keeps its settings: what later commands take of them, and when they stop."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from nuq import dispatch
from nuq.formats import commands, network, settings
from nuq.formats.errors import UserError, run_cli
from nuq.formats.images import Preprocessing
from nuq.formats.options import Options
from tests.checkout import ROOT, error_line, execute, make


class Flow:
    """nuq without its work: stages leave empty results, and every command what it was given."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.ran: list[tuple[str, Options]] = []

    def function(self, command: str):
        def work(options: Options) -> None:
            self.ran.append((command, options))
            for name in dispatch.STAGES[command][0] if command in dispatch.STAGES else ():
                path = options.folder / name
                (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
                if path.suffix:
                    path.write_text(f"{options}")
            if command == "quantize":
                (options.folder / "quantized/manifest.json").write_text(f"{options}")

        return work

    def __call__(self, words: str, **environment: str) -> dict[str, Options]:
        """Runs a command; what ran by name, with its options."""
        self.ran.clear()
        arguments = [*words.split(), f"OUT={self.out}"]
        assert commands.main(arguments, dispatch.run, environment) == 0
        return dict(self.ran)


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flow:
    made = Flow(tmp_path / "build")
    monkeypatch.setattr(dispatch, "function", made.function)
    monkeypatch.setattr(commands, "function", made.function)
    monkeypatch.setattr(dispatch, "say_calibration", lambda _: None)
    monkeypatch.setattr(dispatch, "say_design", lambda _: None)
    return made


def test_a_later_step_uses_what_the_build_was_made_with(flow, capsys):
    assert {*flow("csim NET=digits SCHEME=enq BITS=5 PE=16")} == {"quantize", "codegen", "csim"}
    capsys.readouterr()
    ran = flow("bundle")
    assert [*ran] == ["bundle"]  # nothing is made anew
    options = ran["bundle"]
    assert (options.net, options.scheme, options.bits, options.pe) == ("digits", "enq", "5", 16)
    said = capsys.readouterr().out
    assert said.startswith(f"{flow.out}/settings.toml: NET=digits SCHEME=enq BITS=5 PE=16 (")
    assert said.endswith("(kept from this build's last command; SCHEME= drops SCHEME)\n")
    assert said.count("\n") == 1


def test_accuracy_is_what_a_bundle_is_made_of(flow, tmp_path):
    """The float recipe and the images of an accuracy are not forgotten by the bundle."""
    net, data = tmp_path / "own.onnx", tmp_path / "images.npz"
    net.write_text("")
    data.write_text("")
    flow(f"accuracy NET={net} DATA={data} MEAN=0.5 STD=0.5 RESIZE=40 IMAGES=500")
    ran = flow(f"bundle NET={net} BOARD=pynq-z2")
    made = ran["quantize"]
    assert (made.data, made.mean, made.std, made.resize) == (str(data), "0.5", "0.5", 40)
    assert made.images is None  # the number of images of accuracy is not that of the build
    assert settings.read(flow.out)["DATA"] == str(data)


def test_a_step_that_only_uses_a_build_stops_where_something_differs(flow, capsys):
    flow("csim NET=digits SCHEME=enq BITS=5")
    for command in ("bundle", "emulate", "notebook", "measure", "report", "vivado-script"):
        words = [command, "SCHEME=knq", "BITS=5", "PE=8", f"OUT={flow.out}"]
        assert run_cli(lambda argv: commands.main(argv, dispatch.run), words) == 2
        assert capsys.readouterr().err == (
            f"error: {flow.out} must be used as it was made, with SCHEME=enq PE not set, not with "
            "SCHEME=knq PE=8; leave that out, or run `nuq csim` with it first\n"
        )
    with pytest.raises(UserError, match="with NET=digits, not with NET=vgg16; leave"):
        flow("bundle NET=vgg16")
    assert [*flow("bundle SCHEME=enq")] == ["bundle"]


def test_what_makes_a_build_changes_its_settings(flow):
    flow("csim NET=digits SCHEME=enq BITS=5")
    assert flow("csim BITS=3")["quantize"].scheme == "enq"
    assert settings.read(flow.out) == {"NET": "digits", "SCHEME": "enq", "BITS": "3"}
    assert flow("csim BITS=")["quantize"].bits is None
    assert flow("csim SCHEME=")["quantize"] == Options(net="digits", out=flow.out)
    flow("quantize BITS=2")
    assert flow("csim NET=cifar10")["quantize"] == Options(net="cifar10", out=flow.out)
    assert settings.read(flow.out) == {"NET": "cifar10"}


def test_a_new_plan_or_engine_begins_anew(flow, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text("")
    flow("csim NET=digits SCHEME=enq BITS=5 IMAGES=7 PE=16")
    made = flow(f"csim PLAN={plan}")["codegen"]
    assert (made.scheme, made.bits, made.plan, made.images, made.pe) == (None, None, plan, 7, 16)
    engine = tmp_path / "engine"
    engine.mkdir()
    made = flow(f"csim ENGINE={engine}")["codegen"]
    assert (made.pe, made.engine, made.plan) == (None, engine, plan)
    assert flow("csim BATCH=4")["codegen"].engine == engine  # which may take as many
    assert flow("csim PE=24")["codegen"].engine is None


def test_a_search_does_not_take_the_widths_of_the_build(flow):
    flow("csim NET=digits BITS=5 IMAGES=7 SCHEME=enq")
    options = flow("allocate")["allocate"]
    assert (options.net, options.bits, options.images, options.scheme) == (
        "digits", None, None, "enq",
    )  # fmt: skip
    flow("allocate NET=digits BITS=auto METHOD=budget")
    assert settings.read(flow.out)["BITS"] == "5"


def test_measure_may_have_other_images_than_the_build(flow, tmp_path):
    for name in ("a.npz", "b.npz"):
        (tmp_path / name).write_text("")
    ran = flow(f"measure NET=digits DATA={tmp_path}/a.npz BATCH=4")
    assert ran["quantize"].data == ran["measure"].data == f"{tmp_path}/a.npz"
    ran = flow(f"measure DATA={tmp_path}/b.npz BATCH=2")
    assert [*ran] == ["measure"] and ran["measure"].data == f"{tmp_path}/b.npz"
    assert settings.read(flow.out)["DATA"] == f"{tmp_path}/a.npz"
    assert flow("measure")["measure"].data is None


def test_files_are_kept_from_the_root_on(flow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "digits").mkdir()  # no network
    flow("csim NET=digits DATA=images")
    assert settings.read(flow.out) == {"NET": "digits", "DATA": str(tmp_path / "images")}
    (tmp_path / "net.onnx").symlink_to("images")
    assert flow("csim NET=net.onnx")["csim"].net == str(tmp_path / "net.onnx")
    flow("csim NET=digits DATA=images")
    monkeypatch.chdir("/")
    assert flow("bundle")["bundle"].data == str(tmp_path / "images")


def test_the_file_has_every_kind_of_value_and_is_checked(tmp_path):
    values = {"NET": "it's “x”.onnx", "SCALE": 1 / 255, "RESIZE": 40, "QUICK": True,
              "AVERAGE": (3.0, 4.5), "PLAN": tmp_path / "a b.toml"}  # fmt: skip
    settings.write(tmp_path, values)
    assert settings.read(tmp_path) == values
    for text, fault in (
        ("BITZ = 3", "settings.toml must have options, not BITZ; did you mean BITS"),
        ("BITS = ", "settings.toml must be a readable TOML file"),
        ("RESIZE = 'x'", "RESIZE must be an integer"),
    ):
        (tmp_path / "settings.toml").write_text(text)
        with pytest.raises(UserError, match=fault):
            settings.read(tmp_path)


def test_a_settings_file_comes_between_command_line_and_build(flow, tmp_path, capsys):
    file = tmp_path / "own.toml"
    file.write_text('NET = "digits"\nBITS = 5\nPE = 16\nREPEATS = 3\nAVERAGE = [3, 4.5]\n')
    made = flow(f"csim CONFIG={file} BITS=3")
    assert (made["quantize"].net, made["quantize"].bits) == ("digits", "3")
    assert made["codegen"].pe == 16
    assert settings.read(flow.out) == {"NET": "digits", "BITS": "3", "PE": 16}
    assert flow(f"csim CONFIG={file} BITS=")["quantize"].bits is None
    assert flow(f"csim CONFIG={file}", BITS="4")["quantize"].bits == "4"
    # what the file does not say is as the build keeps it, which is said
    flow("csim NET=digits SIMD=24 BITS=6")
    capsys.readouterr()
    made = flow(f"csim CONFIG={file}")["codegen"]
    assert (made.bits, made.simd, made.pe) == ("5", 24, 16)
    assert "settings.toml: SIMD=24 (" in capsys.readouterr().out
    assert flow(f"measure CONFIG={file}")["measure"].repeats == 3
    assert flow(f"allocate CONFIG={file}")["allocate"].average == (3.0, 4.5)


def test_a_build_can_be_repeated_by_its_settings(flow, tmp_path):
    flow("csim NET=digits BITS=5 PE=16 IMAGES=7 SCALE=1/255")
    kept, first = flow.out / settings.FILE, flow.ran.copy()
    again = tmp_path / "again.toml"
    again.write_text(kept.read_text())
    flow.out = tmp_path / "other"
    assert {**flow(f"csim CONFIG={again}")} == {
        name: replace(options, out=flow.out) for name, options in first
    }
    assert settings.read(flow.out) == settings.read(kept.parent)


def test_the_out_of_a_builds_own_settings_is_its_folder(flow, tmp_path, monkeypatch):
    """Not build/NET, which may be another build; what is given wins, and a copy is of no build."""
    monkeypatch.chdir(tmp_path)
    flow("csim NET=digits BITS=auto")
    own, made = f"CONFIG={flow.out}/{settings.FILE}", settings.read(flow.out)

    def ran(*words: str) -> Path:
        flow.ran.clear()
        assert commands.main([*words], dispatch.run, {}) == 0
        return flow.ran[-1][1].folder

    assert ran("bundle", own) == ran("allocate", own) == flow.out  # nothing is refused
    assert settings.read(flow.out) == made
    assert ran("csim", own, "OUT=elsewhere") == Path("elsewhere")
    assert ran("csim", own, "NET=vgg16") == Path("build/vgg16")
    copy = tmp_path / "kept" / settings.FILE
    copy.parent.mkdir()
    copy.write_text((flow.out / settings.FILE).read_text())
    assert ran("csim", f"CONFIG={copy}", "NET=digits") == Path("build/digits")
    monkeypatch.chdir(flow.out)
    assert ran("bundle", f"CONFIG={settings.FILE}").samefile(flow.out)


def test_a_settings_file_is_no_way_to_pack_what_was_not_made(flow, tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('NET = "digits"\nBITS = 5\n')
    flow(f"csim CONFIG={file}")
    assert [*flow(f"bundle CONFIG={file}")] == ["bundle"]
    flow(f"csim CONFIG={file} BITS=3")
    with pytest.raises(UserError, match="as it was made, with BITS=3, not with BITS=5; leave"):
        flow(f"bundle CONFIG={file}")


def test_options_that_a_command_has_of_its_own_are_not_taken_from_a_file(flow, tmp_path):
    """A search has no widths of the build, nor an accuracy its number of images."""
    file = tmp_path / "own.toml"
    file.write_text('NET = "digits"\nBITS = 5\nIMAGES = 7\nSCHEME = "enq"\n')
    made = flow(f"allocate CONFIG={file}")["allocate"]
    assert (made.net, made.bits, made.images, made.scheme) == ("digits", None, None, "enq")
    assert flow(f"allocate CONFIG={file} IMAGES=9")["allocate"].images == 9
    (tmp_path / "plan.toml").write_text("")
    made = flow(f"csim CONFIG={file} PLAN={tmp_path}/plan.toml")["quantize"]
    assert (made.scheme, made.bits) == (None, None)  # which the plan stands for


def test_paths_of_a_settings_file_are_beside_it(flow, tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    (folder / "images").mkdir(parents=True)
    (folder / "own.onnx").write_text("")
    (folder / "own.toml").write_text('NET = "own.onnx"\nDATA = "images"\n')
    monkeypatch.chdir("/")
    made = flow(f"quantize CONFIG={folder}/own.toml")["quantize"]
    assert (made.net, made.data) == (f"{folder}/own.onnx", f"{folder}/images")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("BITZ = 3", "own.toml must have options, not BITZ; did you mean BITS"),
        ("bits = 3", "own.toml must have options, not bits; did you mean BITS"),
        ('CONFIG = "b.toml"', "own.toml must have options, not CONFIG"),
        ("IMAGES = 0", "own.toml: IMAGES must be an integer of 1 or more, not '0'"),
        ("BITS = ", "own.toml must be a readable TOML file"),
    ],
)
def test_a_bad_settings_file_is_refused(text, fault, flow, tmp_path):
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(UserError, match=fault):
        flow(f"csim CONFIG={tmp_path}/own.toml")
    with pytest.raises(UserError, match=r"CONFIG must be a settings file, not .*owm.toml: .*; did"):
        flow(f"csim CONFIG={tmp_path}/owm.toml")


def test_a_result_that_failed_leaves_the_settings(flow, monkeypatch):
    flow("csim NET=digits BITS=5")

    def fail(_: str):
        raise UserError("no")

    monkeypatch.setattr(dispatch, "function", fail)
    with pytest.raises(UserError, match="^no$"):
        flow("csim BITS=3")
    assert settings.read(flow.out)["BITS"] == "5"


def test_variables_of_the_environment_are_said_or_refused(flow, capsys):
    assert flow("csim NET=digits", BITS="3", PATH="/bin", SHELL="sh")["quantize"].bits == "3"
    assert capsys.readouterr().err == "note: BITS=3 from the environment\n"
    assert flow("csim NET=digits BITS=4", BITS="3")["quantize"].bits == "4"
    assert capsys.readouterr().err == ""
    for name, near in (("SCHEM", "SCHEME"), ("net", "NET"), ("IMAGE", "IMAGES")):
        with pytest.raises(UserError, match=f"not {name}; did you mean {near}. Otherwise `unset"):
            flow("csim NET=digits", **{name: "x"})


@pytest.mark.parametrize("name", ["PATH", "HOME", "LANG", "TERM", "SHELL", "USER", "LINES", "PWD"])
def test_variables_of_the_system_are_none_of_ours(name):
    assert commands.close(name) is None


def test_a_build_is_for_one_run_at_a_time(tmp_path):
    """The second run says that it waits, and begins when the first has ended."""
    program = (
        "import sys, time; from pathlib import Path; from nuq import dispatch\n"
        "with dispatch.locked(Path(sys.argv[1])):\n"
        "    print('in', flush=True); time.sleep(float(sys.argv[2])); print('out', flush=True)"
    )
    run = [sys.executable, "-c", program, str(tmp_path / "build")]
    with subprocess.Popen([*run, "60"], cwd=ROOT, stdout=subprocess.PIPE) as first:
        assert first.stdout and first.stdout.readline() == b"in\n"
        with subprocess.Popen(
            [*run, "0"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as second:
            assert second.stdout and second.stderr
            said = second.stderr.readline()
            assert said == f"note: {tmp_path}/build is in use; waiting for that run to end\n"
            reader = threading.Thread(target=second.stdout.readline)
            reader.start()
            reader.join(0.2)
            assert reader.is_alive()
            first.kill()
            assert second.wait(30) == 0


def test_a_folder_that_nothing_was_put_into_goes_again(tmp_path):
    folder = tmp_path / "build" / "net"
    with pytest.raises(UserError, match="^no$"), dispatch.locked(folder):
        raise UserError("no")
    assert [*tmp_path.iterdir()] == []
    folder.parent.mkdir()  # what was there stays
    with dispatch.locked(folder):
        pass
    assert [*tmp_path.rglob("*")] == [folder.parent]
    with dispatch.locked(folder):
        (folder / "report.json").write_text("")
    assert (folder / "report.json").is_file()


def test_a_run_that_waited_for_a_folder_that_is_gone_makes_it_anew(tmp_path, monkeypatch):
    folder, lock = tmp_path / "net", dispatch.fcntl.flock

    def removed(handle: int, how: int) -> None:
        monkeypatch.setattr(dispatch.fcntl, "flock", lock)
        folder.rmdir()
        lock(handle, how)

    monkeypatch.setattr(dispatch.fcntl, "flock", removed)
    with dispatch.locked(folder):
        handle = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            lock(handle, dispatch.fcntl.LOCK_EX | dispatch.fcntl.LOCK_NB)
        os.close(handle)


def test_a_whole_command_has_the_lock(flow, monkeypatch):
    held = []

    def work(_: str):
        def function(options: Options) -> None:
            handle = os.open(options.folder, os.O_RDONLY)
            try:
                dispatch.fcntl.flock(handle, dispatch.fcntl.LOCK_EX | dispatch.fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(options.folder)
            finally:
                os.close(handle)

        return function

    monkeypatch.setattr(commands, "function", work)
    flow("csim NET=digits")
    flow("allocate NET=digits")
    assert held == [flow.out] * 2


def test_make_refuses_variables_that_it_does_not_know(tmp_path):
    for words in (["lint", "BITZ=3"], ["fuzz", "COUNT=3"], ["help", "net=digits"]):
        line = error_line(make(*words))
        assert line.startswith(f"error: make must have variables that exist, not {words[1][:3]}")
    done = make("csim", MAKEFLAGS="SCHEM=enq")
    assert "csim must have options that exist, not SCHEM; did you mean SCHEME?" in done.stderr
    assert error_line(make("csim", net="digits")).startswith("error: the environment must set")


@pytest.mark.parametrize(
    ("words", "word", "near"),
    [("bundel", "bundel", "bundle"), ("tset", "tset", "test"), ("csim bundel", "bundel", "bundle")],
)
def test_make_names_the_target_that_is_nearly_a_mistyped_one(words, word, near):
    """Also the second of a line, before the first is made."""
    line = error_line(make(*words.split(), "NET=digits"))
    assert line == (
        f"error: make must have targets that exist, not {word}; did you mean {near}?; "
        "`make help ALL=1` lists them"
    )


def test_clean_leaves_bitstreams(tmp_path):
    (tmp_path / "Makefile").symlink_to(ROOT / "Makefile")
    for name in ("formats", "nuq"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("digits/bitstream/accelerator.bit", "digits/hls/a.cpp", "alexnet/design.json"):
        path = tmp_path / "build" / name
        path.parent.mkdir(parents=True)
        path.write_text("")
    done = execute("make", "clean", folder=tmp_path, status=0)
    left = [path.name for path in sorted((tmp_path / "build").rglob("*"))]
    assert left == ["digits", "bitstream", "accelerator.bit"]
    assert done.stdout == "kept: build/digits/bitstream\n"


def test_python_3_12_will_do(tmp_path):
    """The first of the Pythons that runs makes .venv; where none does, one sentence."""
    (tmp_path / "Makefile").symlink_to(ROOT / "Makefile")
    (tmp_path / "formats").symlink_to(ROOT / "formats")
    (tmp_path / "requirements.txt").write_text("")
    path = f"{tmp_path}/bin:{os.environ['PATH']}"

    def stub(name: str, text: str) -> None:
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    for name in ("python3.11", "python3.12"):
        stub(name, "exit 127")
    line = error_line(execute("make", "install", folder=tmp_path, PATH=path))
    assert line.startswith("error: python3.11 or python3.12 must be on the PATH; install one")
    stub("python3.12", "mkdir -p .venv/bin; ln -sf /bin/true .venv/bin/python")
    execute("make", "install", folder=tmp_path, PATH=path, status=0)
    assert (tmp_path / ".venv" / ".installed").exists()


def test_a_space_in_a_folder_is_no_end_of_it(tmp_path):
    done = make("-n", "csim", "NET=digits", f"OUT={tmp_path}/a b csim=1", status=0)
    assert f"OUT='{tmp_path}/a b csim=1'" in done.stdout and not done.stderr


def test_a_later_step_warns_of_a_network_that_guesses(tmp_path, capsys, monkeypatch):
    manifest = {
        "calibration": {"images": 2, "source": "sample photographs", "labels": False},
        "input": {"preprocessing": vars(Preprocessing(40, 1.0, (0.5,), (0.5,)))},
        "weights": "file",
        "layers": [{"out_shape": [10, 1, 1]}],
        "accuracy": {"float_top1": 16.9, "images": 360},
    }
    monkeypatch.setattr(network, "read_manifest", lambda _: manifest)
    dispatch.say_calibration(tmp_path)
    said = capsys.readouterr()
    assert said.out == "Calibrated on 2 image(s) of sample photographs, without labels\n"
    assert said.err.startswith("warning: float top-1 is 16.9% of 360 images, little better than")
    assert "SCALE and RESIZE ((pixel * 1 - 0.5) / 0.5, shorter side to 40" in said.err
    manifest["accuracy"] = None
    dispatch.say_calibration(tmp_path)
    assert capsys.readouterr().err == ""
    manifest |= {"accuracy": {"float_top1": 16.9, "images": 360}, "weights": "seeded"}
    dispatch.say_calibration(tmp_path)
    seeded = "WARNING: the weights are seeded random numbers: accuracy means nothing\n"
    assert capsys.readouterr().err == seeded
