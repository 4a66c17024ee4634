# SPDX-License-Identifier: Apache-2.0
"""A hardware handoff file (.hwh) of the accelerator behind a Zynq UltraScale+.

Registers are placed as Vitis HLS places them (UG1399, "S_AXILITE Control Register Map"): from 0x10
in the order of the arguments, one word of reserve behind each, arrays behind everything on a
multiple of their size. The emulated fabric decodes these offsets, and pynq's own parser reads them
from the file.
"""

from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from nuq.formats.design import COUNTERS, SCALARS, pointers

IP_NAME = "accelerator_0"
MASTER = "M_AXI_HPM0_FPD"  # the processor's bus to the registers
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
INTERRUPTS = {"GIER": 0x4, "IP_IER": 0x8, "IP_ISR": 0xC}  # which the driver leaves alone
MASTER_DRIVES = "AWADDR AWVALID WDATA WSTRB WVALID BREADY ARADDR ARVALID RREADY"  # signals of a bus
SLAVE_DRIVES = "AWREADY WREADY BRESP BVALID ARREADY RDATA RRESP RVALID"

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
    >>> [hex(layout[name].offset) for name in ("CTRL", "w0_1", "program_1", "first")]
    ['0x0', '0x10', '0x1c', '0x40']
    >>> hex(layout["design_id"].offset), hex(layout["Memory_counters"].offset)
    ('0x58', '0x80')
    """

    def data(name: str, offset: int, access: str = "read-write") -> Register:
        return Register(name, offset, 32, access, ((name, 0, 32, access),))

    registers = [Register("CTRL", 0x0, 32, "read-write", CTRL_FIELDS)]
    registers += [data(name, place) for name, place in INTERRUPTS.items()]
    offset = FIRST_ARGUMENT
    for name in pointers(weight_ports):
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


def make_hwh(network: str, clock_mhz: float, weight_ports: int = 1) -> str:
    """The .hwh text of the accelerator behind a Zynq UltraScale+.

    Not a Zynq-7000, whose files lack the clock frequency that pynq 4 looks for.
    """
    root = _node(
        "EDKSYSTEM",
        _node("SYSTEMINFO", ARCH="zynquplus", DEVICE="zu7ev", NAME=network),
        _node("EXTERNALPORTS"),
        _node("EXTERNALINTERFACES"),
        _node("MODULES", _accelerator(weight_ports), _processor(clock_mhz)),
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
    for signal in (*MASTER_DRIVES.split(), *SLAVE_DRIVES.split()):
        physical, wire = f"{name}_{signal}", f"control_bus_{signal.lower()}"
        direction = "O" if (signal in SLAVE_DRIVES.split()) == (kind == "SLAVE") else "I"
        SubElement(ports, "PORT", DIR=direction, NAME=physical, SIGIS="undef", SIGNAME=wire)
        SubElement(maps, "PORTMAP", LOGICAL=signal, PHYSICAL=physical)
    names = {"BUSNAME": "control_bus", "NAME": name, "TYPE": kind}
    vlnv = "xilinx.com:interface:aximm:1.0"
    interface = _node("BUSINTERFACE", maps, DATAWIDTH="32", VLNV=vlnv, **names)
    return ports, _node("BUSINTERFACES", interface)


def _processor(clock_mhz: float) -> Element:
    clocks = [item for index in range(4) for item in _clock(index, clock_mhz)]
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
        MASTERBUSINTERFACE=MASTER,
        MEMTYPE="REGISTER",
        SLAVEBUSINTERFACE="s_axi_control",
    )
    return _module(
        "zynq_ultra_ps_e_0",
        "xilinx.com:ip:zynq_ultra_ps_e:3.4",
        _node("PARAMETERS", *clocks),
        *_bus(MASTER, "MASTER"),
        _node("MEMORYMAP", window),
        _node("PERIPHERALS", _node("PERIPHERAL", INSTANCE=IP_NAME)),
        IS_PL="FALSE",
    )


def _clock(index: int, clock_mhz: float) -> list[Element]:
    """Parameters of clock `index` of the processing system; only clock 0 is on."""
    prefix = f"PSU__CRL_APB__PL{index}_REF_CTRL__"
    values = {
        f"PSU__FPGA_PL{index}_ENABLE": "1" if index == 0 else "0",
        f"{prefix}DIVISOR0": str(round(1500 / clock_mhz)),
        f"{prefix}DIVISOR1": "1",
        f"{prefix}SRCSEL": "IOPLL",
        f"{prefix}ACT_FREQMHZ": str(clock_mhz),
    }
    return _named("PARAMETER", **values)
