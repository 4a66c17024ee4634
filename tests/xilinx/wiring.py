# SPDX-License-Identifier: Apache-2.0
"""The block design that recorded calls build, checked as a netlist.

What IPs have for pins is written down here from their product guides (PG082, PG201, PG247, PG164),
apart from the tables that render the script.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from tcl_check import Call, Run, is_ordered, pairs

ORDER = (
    "create_project", "update_ip_catalog", "create_bd_design", "create_bd_cell", "connect_bd_net",
    "assign_bd_address", "validate_bd_design", "save_bd_design", "generate_target", "make_wrapper",
    "launch_runs", "wait_on_runs", "open_run", "report_utilization", "report_timing_summary",
    "get_timing_paths",
)  # fmt: skip
PORTS = range(4)
PINS = {
    "processing_system7": [
        *("FCLK_CLK0", "FCLK_RESET0_N", "M_AXI_GP0", "M_AXI_GP0_ACLK"),
        *(f"S_AXI_HP{n}{end}" for end in ("", "_ACLK") for n in PORTS),
    ],
    "zynq_ultra_ps_e": [
        *("pl_clk0", "pl_resetn0", "M_AXI_HPM0_FPD", "maxihpm0_fpd_aclk"),
        *(f"S_AXI_HP{n}_FPD" for n in PORTS),
        *(f"saxihp{n}_fpd_aclk" for n in PORTS),
    ],
    "proc_sys_reset": [
        "slowest_sync_clk", "ext_reset_in", "aux_reset_in", "mb_debug_sys_rst", "dcm_locked",
        "mb_reset", "bus_struct_reset", "peripheral_reset", "interconnect_aresetn",
        "peripheral_aresetn",
    ],
    "axi_protocol_converter": ["aclk", "aresetn", "S_AXI", "M_AXI"],
    "smartconnect": [
        *("aclk", "aresetn"),
        *(f"{side}{n:02d}_AXI" for side in "SM" for n in range(16)),
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Processor:
    """Names of a processing system: pins, properties, DRAM segments behind port n."""

    clock: str
    reset: str
    master: str
    master_clock: str
    port: str
    port_clock: str
    enable: str
    segments: tuple[str, ...]
    frequency: str
    source: str
    registers: range


PROCESSORS = {
    "processing_system7": Processor(
        clock="FCLK_CLK0",
        reset="FCLK_RESET0_N",
        master="M_AXI_GP0",
        master_clock="M_AXI_GP0_ACLK",
        port=r"S_AXI_HP(\d)",
        port_clock="S_AXI_HP{0}_ACLK",
        enable="CONFIG.PCW_USE_S_AXI_HP{0}",
        segments=("S_AXI_HP{0}/HP{0}_DDR_LOWOCM",),
        frequency="CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ",
        source="CONFIG.PCW_FCLK0_PERIPHERAL_CLKSRC",
        registers=range(0x4000_0000, 0x8000_0000),
    ),
    "zynq_ultra_ps_e": Processor(
        clock="pl_clk0",
        reset="pl_resetn0",
        master="M_AXI_HPM0_FPD",
        master_clock="maxihpm0_fpd_aclk",
        port=r"S_AXI_HP(\d)_FPD",
        port_clock="saxihp{0}_fpd_aclk",
        enable="CONFIG.PSU__USE__S_AXI_GP{1}",
        segments=("SAXIGP{1}/HP{0}_DDR_LOW", "SAXIGP{1}/HP{0}_DDR_HIGH"),
        frequency="CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ",
        source="CONFIG.PSU__CRL_APB__PL0_REF_CTRL__SRCSEL",
        registers=range(0xA000_0000, 0xB000_0000),
    ),
}
BRIDGES = ("smartconnect", "axi_protocol_converter")
SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass
class Netlist:
    """Cells, their settings, and who is connected with whom."""

    cells: dict[str, str] = field(default_factory=dict)
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    nets: list[tuple[str, ...]] = field(default_factory=list)
    interfaces: list[tuple[str, ...]] = field(default_factory=list)

    def partners(self, pin: str, links: list[tuple[str, ...]]) -> list[str]:
        """The other ends of a pin's links."""
        return [end for link in links if pin in link for end in link if end != pin]

    def cells_of(self, kind: str) -> list[str]:
        """The cells of an IP."""
        return [cell for cell, ip in self.cells.items() if ip == kind]

    def number(self, cell: str, name: str) -> int:
        """A setting of a cell, 1 where it has none."""
        return int(self.settings.get(cell, {}).get(name, 1))


def interface_pins(masters: list[str]) -> dict[str, list[str]]:
    """Pins of every IP, with those of an accelerator with these bundles."""
    accelerator = ["ap_clk", "ap_rst_n", "interrupt", "s_axi_control"]
    return {**PINS, "accelerator": [*accelerator, *(f"m_axi_{name}" for name in masters)]}


def dram_segments(processor: str) -> dict[str, list[str]]:
    """Answers of get_bd_addr_segs: pattern -> segments, for every port, and the registers."""
    cell = f"{processor}_0"
    answers = {"accelerator_0/s_axi_control/Reg": ["accelerator_0/s_axi_control/Reg"]}
    for n in PORTS:
        found = [f"{cell}/{s.format(n, n + 2)}" for s in PROCESSORS[processor].segments]
        answers |= {segment: [segment] for segment in found}
        answers[f"{cell}/SAXIGP{n + 2}/HP{n}_DDR_*"] = found
        for name in ("LPS_OCM", "QSPI"):
            answers[f"{cell}/SAXIGP{n + 2}/HP{n}_{name}"] = [f"{cell}/SAXIGP{n + 2}/HP{n}_{name}"]
    return answers


def build(run: Run) -> Netlist:
    """The netlist of the recorded calls."""
    made = Netlist()
    for call in run.calls:
        if call.name == "create_bd_cell":
            made.cells[call.operands[0]] = call.options["-vlnv"].split(":")[2]
        elif call.name == "set_property" and "-dict" in call.options:
            made.settings.setdefault(call.operands[0], {}).update(pairs(call.options["-dict"]))
        elif call.name == "connect_bd_net":
            made.nets.append(call.operands)
        elif call.name == "connect_bd_intf_net":
            made.interfaces.append(call.operands)
    return made


def check(run: Run, masters: list[str], clock_mhz: float, plls: set[str]) -> list[str]:
    """Everything that is wrong with a recorded Vivado script."""
    problems = run.problems()
    if not is_ordered(run.calls, ORDER):
        problems.append(f"commands must come in the order {' '.join(ORDER)}")
    if not any(
        call.operands[:2] == ("strategy", "Performance_ExplorePostRoutePhysOpt")
        for call in run.named("set_property")
    ):
        problems.append("impl_1 must have a strategy for performance")
    made = build(run)
    system = next((ip for ip in made.cells.values() if ip in PROCESSORS), None)
    if system is None or "accelerator" not in made.cells.values():
        return [*problems, "a processing system and an accelerator must exist"]
    names = PROCESSORS[system]
    settings = made.settings.get(f"{system}_0", {})
    frequency, source = settings.get(names.frequency), settings.get(names.source)
    if frequency is None or abs(float(frequency) - clock_mhz) > 0.001:
        problems.append(f"the clock must be {clock_mhz} MHz, not {frequency}")
    if source not in plls:
        problems.append(f"the clock must come from one of {sorted(plls)}, not {source}")
    problems += _check_masters(made, system, masters)
    problems += _check_protocols(made, system)
    problems += _check_clocks(made, system)
    problems += _check_addresses(run, made, system, masters)
    return problems


def _slave(made: Netlist, pin: str) -> str | None:
    ends = made.partners(pin, made.interfaces)
    return ends[0] if len(ends) == 1 else None


def port_of(made: Netlist, system: str, master: str) -> int | None:
    """Number of the DRAM port that a master reaches through one interconnect."""
    slave = _slave(made, f"accelerator_0/m_axi_{master}")
    found = re.fullmatch(r"(\w+)/S(\d\d)?_AXI", slave or "")
    if not found or made.cells.get(found[1]) not in BRIDGES:
        return None
    if found[2] and int(found[2]) >= made.number(found[1], "CONFIG.NUM_SI"):
        return None
    end = _slave(made, f"{found[1]}/{'M00_AXI' if found[2] else 'M_AXI'}")
    port = re.fullmatch(f"{system}_0/{PROCESSORS[system].port}", end or "")
    return int(port[1]) if port else None


def _check_masters(made: Netlist, system: str, masters: list[str]) -> list[str]:
    problems = []
    settings = made.settings.get(f"{system}_0", {})
    slaves = [_slave(made, f"accelerator_0/m_axi_{name}") for name in masters]
    if len(set(slaves)) != len(slaves):
        problems.append(f"each master must have a slave port of its own, not {slaves}")
    for name in masters:
        port = port_of(made, system, name)
        if port is None:
            problems.append(f"m_axi_{name} must reach one DRAM port")
        elif settings.get(PROCESSORS[system].enable.format(port, port + 2)) != "1":
            problems.append(f"DRAM port {port} must be enabled")
    for cell in made.cells_of("smartconnect"):
        for n in range(made.number(cell, "CONFIG.NUM_SI")):
            if _slave(made, f"{cell}/S{n:02d}_AXI") is None:
                problems.append(f"{cell}/S{n:02d}_AXI must be connected")
    control = _slave(made, f"{system}_0/{PROCESSORS[system].master}")
    cell = (control or "/").split("/")[0]
    ends = [_slave(made, f"{cell}/{name}") for name in ("M00_AXI", "M_AXI")]
    if "accelerator_0/s_axi_control" not in ends:
        problems.append("the processor must reach s_axi_control")
    return problems


def _check_protocols(made: Netlist, system: str) -> list[str]:
    """Protocol converters make what the processing system's ports have."""
    ends = {"control_0": ("AXI3", "AXI4LITE"), **{f"memory_{n}": ("AXI4", "AXI3") for n in PORTS}}
    problems = []
    for cell in made.cells_of("axi_protocol_converter"):
        settings = made.settings.get(cell, {})
        found = tuple(settings.get(f"CONFIG.{side}_PROTOCOL") for side in ("SI", "MI"))
        if system != "processing_system7" or found != ends[cell]:
            problems.append(f"{cell} must make {ends[cell][1]} of {ends[cell][0]}, not {found}")
        if settings.get("CONFIG.TRANSLATION_MODE") != "2":
            problems.append(f"{cell} must split bursts")
    return problems


def _check_clocks(made: Netlist, system: str) -> list[str]:
    names = PROCESSORS[system]
    cell, (reset,) = f"{system}_0", made.cells_of("proc_sys_reset")
    clocks = ["accelerator_0/ap_clk", f"{reset}/slowest_sync_clk", f"{cell}/{names.master_clock}"]
    bridges = [cell for kind in BRIDGES for cell in made.cells_of(kind)]
    clocks += [f"{name}/aclk" for name in bridges]
    resets = ["accelerator_0/ap_rst_n", *(f"{name}/aresetn" for name in bridges)]
    used = {end for link in made.interfaces for end in link}
    for n in PORTS:
        if f"{cell}/{names.port}".replace(r"(\d)", str(n)) in used:
            clocks.append(f"{cell}/{names.port_clock.format(n)}")
    wanted = dict.fromkeys(clocks, [f"{cell}/{names.clock}"])
    wanted[f"{reset}/ext_reset_in"] = [f"{cell}/{names.reset}"]
    sources = [f"{reset}/peripheral_aresetn", f"{reset}/interconnect_aresetn"]
    problems = []
    for pin in [*wanted, *resets]:
        found = made.partners(pin, made.nets)
        if len(found) != 1 or found[0] not in wanted.get(pin, sources):
            problems.append(f"{pin} must be driven by one of {wanted.get(pin, sources)}: {found}")
    return problems


def _check_addresses(run: Run, made: Netlist, system: str, masters: list[str]) -> list[str]:
    names, cell, problems = PROCESSORS[system], f"{system}_0", []
    assigned: dict[str, list[Call]] = {}
    for call in run.named("assign_bd_address"):
        assigned.setdefault(call.options.get("-target_address_space", ""), []).append(call)
    registers = assigned.get(f"{cell}/Data", [])
    if [call.operands for call in registers] != [("accelerator_0/s_axi_control/Reg",)]:
        problems.append("the processor must have the registers at an address, and nothing else")
    for call in (call for call in registers if not call.problems):
        text = call.options["-range"]
        size = int(text.rstrip("KMG")) * SUFFIXES.get(text[-1], 1)
        start = int(call.options["-offset"], 16)
        if start not in names.registers or start + size - 1 not in names.registers or start % size:
            problems.append(f"{names.master} must cover {start:#x} + {size:#x}, on a multiple")
    for name in masters:
        port = port_of(made, system, name)
        calls = assigned.get(f"accelerator_0/Data_m_axi_{name}", [])
        wanted = [f"{cell}/{s.format(port, (port or 0) + 2)}" for s in names.segments]
        if sorted(call.operands[0] for call in calls) != sorted(wanted):
            problems.append(f"m_axi_{name} must see {wanted} and nothing else")
    return problems


def read_bundles(source: Path) -> list[str]:
    """The m_axi bundles of a generated accelerator.cpp."""
    found = re.findall(r"INTERFACE.*m_axi.*\bbundle\s*=\s*(\w+)", source.read_text())
    return list(dict.fromkeys(found))
