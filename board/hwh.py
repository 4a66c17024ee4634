# SPDX-License-Identifier: Apache-2.0
"""A hardware handoff file (.hwh) of the accelerator behind a Zynq processing system.

Registers are placed as Vitis HLS places them (UG1399, "S_AXILITE Control Register Map"): from 0x10
in the order of the arguments, one word of reserve behind each, arrays behind everything on a
multiple of their size. The emulated fabric decodes these offsets, and pynq's own parser reads them
from the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from board.contents import COUNTERS
from board.registers import weight_names

IP_NAME = "accelerator_0"
BASE_ADDRESS = 0x43C00000
ADDRESS_RANGE = 0x10000
FIRST_ARGUMENT = 0x10
WORD = 4
SCALARS = ("first", "last", "images")
CTRL_FIELDS = (
    ("AP_START", 0, 1, "read-write"),
    ("AP_DONE", 1, 1, "read-only"),
    ("AP_IDLE", 2, 1, "read-only"),
    ("AP_READY", 3, 1, "read-only"),
    ("RESERVED_1", 4, 3, "read-only"),
    ("AUTO_RESTART", 7, 1, "read-write"),
    ("RESERVED_2", 8, 24, "read-only"),
)
ENABLE_FIELD = (("Enable", 0, 1, "read-write"), ("RESERVED", 1, 31, "read-only"))
INTERRUPT_FIELDS = (
    ("CHAN0", 0, 1, "read-write"),
    ("CHAN1", 1, 1, "read-write"),
    ("RESERVED", 2, 30, "read-only"),
)
BUS_SIGNALS = "AWADDR AWVALID AWREADY WDATA WSTRB WVALID WREADY BRESP BVALID BREADY ARADDR ARVALID"
BUS_SIGNALS += " ARREADY RDATA RRESP RVALID RREADY"
SLAVE_DRIVES = {"AWREADY", "WREADY", "BRESP", "BVALID", "ARREADY", "RDATA", "RRESP", "RVALID"}

Fields = tuple[tuple[str, int, int, str], ...]


@dataclass(frozen=True)
class Register:
    """One register: byte offset, size in bits, access, fields (name, bit, width, access)."""

    name: str
    offset: int
    size: int
    access: str
    fields: Fields


def register_layout(weight_ports: int = 1) -> dict[str, Register]:
    """All registers of the accelerator, by name, in the order of their offsets.

    >>> layout = register_layout()
    >>> [hex(layout[name].offset) for name in ("CTRL", "weights_1", "fm_in_1", "first")]
    ['0x0', '0x10', '0x1c', '0x34']
    >>> hex(layout["design_id"].offset), hex(layout["Memory_counters"].offset)
    ('0x4c', '0x80')
    """
    registers = [
        Register("CTRL", 0x0, 32, "read-write", CTRL_FIELDS),
        Register("GIER", 0x4, 32, "read-write", ENABLE_FIELD),
        Register("IP_IER", 0x8, 32, "read-write", INTERRUPT_FIELDS),
        Register("IP_ISR", 0xC, 32, "read-write", INTERRUPT_FIELDS),
    ]

    def data(name: str, offset: int, access: str = "read-write") -> Register:
        field_access = "write-only" if access == "write-only" else access
        return Register(name, offset, 32, access, ((name, 0, 32, field_access),))

    offset = FIRST_ARGUMENT
    for name in (*weight_names(weight_ports), "fm_in", "fm_out"):
        registers += [data(f"{name}_1", offset), data(f"{name}_2", offset + WORD)]
        offset += 3 * WORD
    for name in SCALARS:
        registers.append(data(name, offset))
        offset += 2 * WORD
    registers.append(data("design_id", offset, "read-only"))
    valid: Fields = (("design_id_ap_vld", 0, 1, "read-only"), ("RESERVED", 1, 31, "read-only"))
    registers.append(Register("design_id_ctrl", offset + WORD, 32, "read-only", valid))
    offset += 2 * WORD
    size = 1 << (len(COUNTERS) * 8 - 1).bit_length()
    start = -(-offset // size) * size
    registers.append(Register("Memory_counters", start, size * 8, "read-only", ()))
    return {register.name: register for register in registers}


def make_hwh(network: str, clock_mhz: float, ultrascale: bool = True, weight_ports: int = 1) -> str:
    """The .hwh text of the accelerator behind a Zynq UltraScale+ or a Zynq-7000.

    pynq 4 refuses the latter: it looks for a clock frequency that Zynq-7000 files do not have.
    """
    root = Element("EDKSYSTEM", EDWVERSION="1.2", VIVADOVERSION="2022.2")
    arch, device = ("zynquplus", "zu7ev") if ultrascale else ("zynq", "7z020")
    SubElement(root, "SYSTEMINFO", ARCH=arch, DEVICE=device, NAME=network)
    SubElement(root, "EXTERNALPORTS")
    SubElement(root, "EXTERNALINTERFACES")
    modules = SubElement(root, "MODULES")
    _add_accelerator(modules, weight_ports)
    _add_processor(modules, ultrascale, clock_mhz)
    ElementTree.indent(root)
    header = '<?xml version="1.0" encoding="UTF-8" standalone="no" ?>\n'
    return header + ElementTree.tostring(root, encoding="unicode") + "\n"


def _property(parent: Element, **properties: str) -> None:
    for name, value in properties.items():
        SubElement(parent, "PROPERTY", NAME=name, VALUE=value)


def _module(parent: Element, name: str, vlnv: str, in_logic: bool) -> Element:
    _, _, kind, version = vlnv.split(":")
    attributes = {
        "FULLNAME": f"/{name}",
        "HWVERSION": version,
        "INSTANCE": name,
        "IPTYPE": "PERIPHERAL",
        "IS_ENABLE": "1",
        "MODCLASS": "PERIPHERAL",
        "MODTYPE": kind,
        "VLNV": vlnv,
    }
    if not in_logic:
        attributes["IS_PL"] = "FALSE"
    return SubElement(parent, "MODULE", attributes)


def _add_accelerator(modules: Element, weight_ports: int) -> None:
    module = _module(modules, IP_NAME, "xilinx.com:hls:accelerator:1.0", True)
    blocks = SubElement(module, "ADDRESSBLOCKS")
    block = SubElement(
        blocks,
        "ADDRESSBLOCK",
        ACCESS="read-write",
        INTERFACE="s_axi_control",
        NAME="Reg",
        RANGE=str(ADDRESS_RANGE),
        USAGE="register",
    )
    registers = SubElement(block, "REGISTERS")
    for register in register_layout(weight_ports).values():
        entry = SubElement(registers, "REGISTER", NAME=register.name)
        _property(
            entry,
            DESCRIPTION=register.name,
            ADDRESS_OFFSET=str(register.offset),
            SIZE=str(register.size),
            ACCESS=register.access,
            IS_ENABLED="true",
            RESET_VALUE="0",
        )
        fields = SubElement(entry, "FIELDS")
        for name, bit, width, access in register.fields:
            field = SubElement(fields, "FIELD", NAME=name)
            _property(
                field,
                DESCRIPTION=name,
                ADDRESS_OFFSET=str(bit),
                ACCESS=access,
                BIT_OFFSET=str(bit),
                BIT_WIDTH=str(width),
            )
    parameters = SubElement(module, "PARAMETERS")
    for name, value in (
        ("C_S_AXI_CONTROL_BASEADDR", hex(BASE_ADDRESS)),
        ("C_S_AXI_CONTROL_HIGHADDR", hex(BASE_ADDRESS + ADDRESS_RANGE - 1)),
    ):
        SubElement(parameters, "PARAMETER", NAME=name, VALUE=value)
    _add_bus(module, "s_axi_control", "SLAVE")


def _add_bus(module: Element, name: str, kind: str) -> None:
    """Ports and bus interface of an AXI4-Lite bus."""
    ports = SubElement(module, "PORTS")
    interfaces = SubElement(module, "BUSINTERFACES")
    bus = SubElement(
        interfaces,
        "BUSINTERFACE",
        BUSNAME="control_bus",
        DATAWIDTH="32",
        NAME=name,
        TYPE=kind,
        VLNV="xilinx.com:interface:aximm:1.0",
    )
    maps = SubElement(bus, "PORTMAPS")
    for signal in BUS_SIGNALS.split():
        physical = f"{name}_{signal}"
        driven_here = (signal in SLAVE_DRIVES) == (kind == "SLAVE")
        SubElement(
            ports,
            "PORT",
            DIR="O" if driven_here else "I",
            NAME=physical,
            SIGIS="undef",
            SIGNAME=f"control_bus_{signal.lower()}",
        )
        SubElement(maps, "PORTMAP", LOGICAL=signal, PHYSICAL=physical)


def _add_processor(modules: Element, ultrascale: bool, clock_mhz: float) -> None:
    if ultrascale:
        name, vlnv, master = (
            "zynq_ultra_ps_e_0",
            "xilinx.com:ip:zynq_ultra_ps_e:3.4",
            "M_AXI_HPM0_FPD",
        )
    else:
        name, vlnv, master = (
            "processing_system7_0",
            "xilinx.com:ip:processing_system7:5.5",
            "M_AXI_GP0",
        )
    module = _module(modules, name, vlnv, False)
    parameters = SubElement(module, "PARAMETERS")
    for index in range(4):
        for parameter, value in _clock(index, ultrascale, clock_mhz):
            SubElement(parameters, "PARAMETER", NAME=parameter, VALUE=value)
    _add_bus(module, master, "MASTER")
    memory = SubElement(module, "MEMORYMAP")
    SubElement(
        memory,
        "MEMRANGE",
        ADDRESSBLOCK="Reg",
        BASENAME="C_S_AXI_CONTROL_BASEADDR",
        BASEVALUE=hex(BASE_ADDRESS),
        HIGHNAME="C_S_AXI_CONTROL_HIGHADDR",
        HIGHVALUE=hex(BASE_ADDRESS + ADDRESS_RANGE - 1),
        INSTANCE=IP_NAME,
        IS_DATA="TRUE",
        IS_INSTRUCTION="TRUE",
        MASTERBUSINTERFACE=master,
        MEMTYPE="REGISTER",
        SLAVEBUSINTERFACE="s_axi_control",
    )
    peripherals = SubElement(module, "PERIPHERALS")
    SubElement(peripherals, "PERIPHERAL", INSTANCE=IP_NAME)


def _clock(index: int, ultrascale: bool, clock_mhz: float) -> list[tuple[str, str]]:
    """Parameters of clock `index` of the processing system; only clock 0 is on."""
    on = "1" if index == 0 else "0"
    if ultrascale:
        prefix = f"PSU__CRL_APB__PL{index}_REF_CTRL"
        return [
            (f"PSU__FPGA_PL{index}_ENABLE", on),
            (f"{prefix}__DIVISOR0", str(round(1500 / clock_mhz))),
            (f"{prefix}__DIVISOR1", "1"),
            (f"{prefix}__SRCSEL", "IOPLL"),
            (f"{prefix}__ACT_FREQMHZ", str(clock_mhz)),
        ]
    prefix = f"PCW_FCLK{index}_PERIPHERAL"
    return [
        (f"PCW_FPGA_FCLK{index}_ENABLE", on),
        (f"{prefix}_DIVISOR0", str(round(1000 / clock_mhz))),
        (f"{prefix}_DIVISOR1", "1"),
        (f"{prefix}_CLKSRC", "IO PLL"),
    ]
