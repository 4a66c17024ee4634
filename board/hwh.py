# SPDX-License-Identifier: Apache-2.0
"""A hardware handoff file (.hwh) of the accelerator behind a Zynq processing system.

Registers are placed as Vitis HLS places them (UG1399, "S_AXILITE Control Register Map"): from 0x10
in the order of the arguments, one word of reserve behind each, arrays behind everything on a
multiple of their size. The emulated fabric decodes these offsets, and pynq's own parser reads them
from the file.
"""

from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from formats.design import COUNTERS, MAP_PORTS, SCALARS, weight_pointers

IP_NAME = "accelerator_0"
BASE_ADDRESS = 0x43C00000
ADDRESS_RANGE = 0x10000
FIRST_ARGUMENT = 0x10
WORD = 4
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
        return Register(name, offset, 32, access, ((name, 0, 32, access),))

    offset = FIRST_ARGUMENT
    for name in (*weight_pointers(weight_ports), *MAP_PORTS):
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
    arch, device = ("zynquplus", "zu7ev") if ultrascale else ("zynq", "7z020")
    root = _node(
        "EDKSYSTEM",
        _node("SYSTEMINFO", ARCH=arch, DEVICE=device, NAME=network),
        _node("EXTERNALPORTS"),
        _node("EXTERNALINTERFACES"),
        _node("MODULES", _accelerator(weight_ports), _processor(ultrascale, clock_mhz)),
        EDWVERSION="1.2",
        VIVADOVERSION="2022.2",
    )
    ElementTree.indent(root)
    header = '<?xml version="1.0" encoding="UTF-8" standalone="no" ?>\n'
    return header + ElementTree.tostring(root, encoding="unicode") + "\n"


def _node(tag: str, *children: Element, **attributes: str) -> Element:
    node = Element(tag, attributes)
    node.extend(children)
    return node


def _named(tag: str, **values: str) -> list[Element]:
    """Elements of a name and a value each."""
    return [_node(tag, NAME=name, VALUE=value) for name, value in values.items()]


def _module(name: str, vlnv: str, *children: Element, **attributes: str) -> Element:
    _, _, kind, version = vlnv.split(":")
    common = {"IPTYPE": "PERIPHERAL", "IS_ENABLE": "1", "MODCLASS": "PERIPHERAL"}
    names = {"FULLNAME": f"/{name}", "INSTANCE": name, "MODTYPE": kind, "VLNV": vlnv}
    return _node("MODULE", *children, HWVERSION=version, **common, **names, **attributes)


def _accelerator(weight_ports: int) -> Element:
    block = _node(
        "ADDRESSBLOCK",
        _node("REGISTERS", *map(_register, register_layout(weight_ports).values())),
        ACCESS="read-write",
        INTERFACE="s_axi_control",
        NAME="Reg",
        RANGE=str(ADDRESS_RANGE),
        USAGE="register",
    )
    addresses = _named(
        "PARAMETER",
        C_S_AXI_CONTROL_BASEADDR=hex(BASE_ADDRESS),
        C_S_AXI_CONTROL_HIGHADDR=hex(BASE_ADDRESS + ADDRESS_RANGE - 1),
    )
    return _module(
        IP_NAME,
        "xilinx.com:hls:accelerator:1.0",
        _node("ADDRESSBLOCKS", block),
        _node("PARAMETERS", *addresses),
        *_bus("s_axi_control", "SLAVE"),
    )


def _register(register: Register) -> Element:
    properties = _named(
        "PROPERTY",
        DESCRIPTION=register.name,
        ADDRESS_OFFSET=str(register.offset),
        SIZE=str(register.size),
        ACCESS=register.access,
        IS_ENABLED="true",
        RESET_VALUE="0",
    )
    fields = []
    for name, bit, width, access in register.fields:
        place, size = str(bit), str(width)
        values = {"DESCRIPTION": name, "ADDRESS_OFFSET": place, "ACCESS": access}
        items = _named("PROPERTY", **values, BIT_OFFSET=place, BIT_WIDTH=size)
        fields.append(_node("FIELD", *items, NAME=name))
    return _node("REGISTER", *properties, _node("FIELDS", *fields), NAME=register.name)


def _bus(name: str, kind: str) -> tuple[Element, Element]:
    """Ports and bus interface of an AXI4-Lite bus."""
    ports, maps = _node("PORTS"), _node("PORTMAPS")
    for signal in BUS_SIGNALS.split():
        physical, wire = f"{name}_{signal}", f"control_bus_{signal.lower()}"
        direction = "O" if (signal in SLAVE_DRIVES) == (kind == "SLAVE") else "I"
        SubElement(ports, "PORT", DIR=direction, NAME=physical, SIGIS="undef", SIGNAME=wire)
        SubElement(maps, "PORTMAP", LOGICAL=signal, PHYSICAL=physical)
    names = {"BUSNAME": "control_bus", "NAME": name, "TYPE": kind}
    vlnv = "xilinx.com:interface:aximm:1.0"
    interface = _node("BUSINTERFACE", maps, DATAWIDTH="32", VLNV=vlnv, **names)
    return ports, _node("BUSINTERFACES", interface)


def _processor(ultrascale: bool, clock_mhz: float) -> Element:
    if ultrascale:
        name, kind, master = "zynq_ultra_ps_e_0", "zynq_ultra_ps_e:3.4", "M_AXI_HPM0_FPD"
    else:
        name, kind, master = "processing_system7_0", "processing_system7:5.5", "M_AXI_GP0"
    clocks = [item for index in range(4) for item in _clock(index, ultrascale, clock_mhz)]
    window = _node(
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
    return _module(
        name,
        f"xilinx.com:ip:{kind}",
        _node("PARAMETERS", *clocks),
        *_bus(master, "MASTER"),
        _node("MEMORYMAP", window),
        _node("PERIPHERALS", _node("PERIPHERAL", INSTANCE=IP_NAME)),
        IS_PL="FALSE",
    )


def _clock(index: int, ultrascale: bool, clock_mhz: float) -> list[Element]:
    """Parameters of clock `index` of the processing system; only clock 0 is on."""
    if ultrascale:
        enable, prefix = f"PSU__FPGA_PL{index}_ENABLE", f"PSU__CRL_APB__PL{index}_REF_CTRL__"
        source = {"SRCSEL": "IOPLL", "ACT_FREQMHZ": str(clock_mhz)}
    else:
        enable, prefix = f"PCW_FPGA_FCLK{index}_ENABLE", f"PCW_FCLK{index}_PERIPHERAL_"
        source = {"CLKSRC": "IO PLL"}
    divisor = round((1500 if ultrascale else 1000) / clock_mhz)
    values = {"DIVISOR0": str(divisor), "DIVISOR1": "1", **source}
    named = {f"{prefix}{name}": value for name, value in values.items()}
    return _named("PARAMETER", **{enable: "1" if index == 0 else "0"}, **named)
