# SPDX-License-Identifier: Apache-2.0
# Runs a rendered script with every command of the vendor's tool replaced by one that writes its name
# and arguments to a file and answers as the tool would. The caller has set:
#   script, calls    the script, and the file for the calls
#   commands         names of all commands
#   pins             IP -> pins and interfaces that a cell of it has
#   answers          property -> value, for get_property
#   segments         pattern of address segments -> segments
# A command that is not among them ends the script, as it would end in the tool.

set log [open $calls w]
fconfigure $log -encoding utf-8
array set cell_of {}

proc record {name arguments} {
    set fields [list $name]
    foreach argument $arguments {
        lappend fields [string map [list "\n" " "] $argument]
    }
    puts $::log [join $fields "\x1f"]
    flush $::log
}

# The arguments that are neither options nor, for options in `with_value`, their values.
proc operands {arguments} {
    return [lsearch -all -inline -not $arguments -*]
}

proc exists_on_cell {name} {
    lassign [split $name /] cell member
    if {![info exists ::cell_of($cell)]} {
        return 0
    }
    return [expr {$member in [dict get $::pins $::cell_of($cell)]}]
}

proc answer {name arguments} {
    set last [lindex $arguments end]
    switch $name {
        create_bd_cell {
            set vlnv [lindex $arguments [expr {[lsearch $arguments -vlnv] + 1}]]
            set ::cell_of($last) [lindex [split $vlnv :] 2]
            return $last
        }
        get_bd_cells {
            return [expr {[info exists ::cell_of($last)] ? $last : ""}]
        }
        get_bd_pins - get_bd_intf_pins {
            return [expr {[exists_on_cell $last] ? $last : ""}]
        }
        get_bd_addr_segs {
            return [expr {[dict exists $::segments $last] ? [dict get $::segments $last] : ""}]
        }
        get_bd_addr_spaces {
            lassign [split $last /] cell space
            set interface [regsub {^Data_} $space ""]
            set known [expr {$space eq "Data" || [exists_on_cell $cell/$interface]}]
            return [expr {[info exists ::cell_of($cell)] && $known ? $last : ""}]
        }
        get_board_parts {
            return [dict get $::answers BOARD_PARTS]
        }
        get_ipdefs {
            return [string map {* 1.0} $last]
        }
        get_property {
            set property [lindex [operands $arguments] 0]
            if {![dict exists $::answers $property]} {
                error "no property $property"
            }
            return [dict get $::answers $property]
        }
        get_timing_paths {
            return path
        }
        current_project {
            return system
        }
        wait_on_runs {
            finish_runs
        }
        default {
            return $last
        }
    }
}

# What the implementation leaves behind.
proc finish_runs {} {
    set name accelerator_system
    foreach {folder file} [list \
        [file join $::project system.runs impl_1] ${name}_wrapper.bit \
        [file join $::project system.gen sources_1 bd $name hw_handoff] $name.hwh] {
        file mkdir $folder
        close [open [file join $folder $file] w]
    }
}

foreach command $commands {
    proc $command args "record $command \$args; return \[answer $command \$args\]"
}

rename exit leave
proc exit {{status 0}} {
    record exit $status
    close $::log
    leave $status
}

source $script
exit 0
