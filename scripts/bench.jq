# The tables of docs/performance.md, as markdown, of what scripts/bench and scripts/bench-peers have measured.
# jq -rn -f scripts/bench.jq --slurpfile report FILE --slurpfile criterion FILE --slurpfile peers FILE

$report[0] as $report | $criterion[0] as $criterion | $peers[0] as $peers |

def figure($id): first($report.workloads[].figures[] | select(.id == $id)) // null;
def of($figure; $driver): first($figure.results[]? | select(.driver == $driver and .median != null)) // null;

# Drivers that are called as fuse-overlayfs is.
def peer_names: [$report.drivers[] | select(.command | test("^(strata |mount |a plain)") | not) | .name];

# The ways in which strata can be asked to mount; none that would sync less than overlay does.
def our_names: [$report.drivers[].name | select(startswith("strata") and (contains("volatile") | not))];

# The best of some drivers at a figure.
def best($figure; $names):
    [$names[] as $name | of($figure; $name) // empty] as $all
    | if ($all | length) == 0 then null
      elif $figure.better == "lower" then ($all | min_by(.median))
      else ($all | max_by(.median)) end;
def fastest($figure): best($figure; peer_names);
def ours($figure): best($figure; our_names);

def digits: if . >= 100 then round | tostring
    elif . >= 10 then (. * 10 | round) / 10 | tostring
    elif . >= 0.1 then (. * 100 | round) / 100 | tostring
    else (. * 1000 | round) / 1000 | tostring end;
def shown($unit):
    if . == null then "–"
    elif $unit == "seconds" then
        if . >= 1 then (digits + " s") elif . >= 0.001 then (. * 1000 | digits) + " ms"
        else (. * 1000000 | digits) + " µs" end
    elif $unit == "per-second" then (. | round | tostring) + "/s"
    else (if . >= 1e9 then (. / 1e9 | digits) + " GB" elif . >= 1e6 then (. / 1e6 | digits) + " MB"
          else (. / 1e3 | digits) + " kB" end) + (if $unit == "bytes" then "" else "/s" end)
    end;

# A ratio and what it may be: "0.41 (≤ 0.5, met)".
def judged($ratio; $limit; $better):
    if $limit == null then (if $ratio == null then "–" else ($ratio | digits) end)
    elif $ratio == null then "– (" + (if $better == "lower" then "≤ " else "≥ " end) + ($limit | tostring) + ")"
    else (if $better == "lower" then $ratio <= $limit else $ratio >= $limit end) as $met
        | "\($ratio | digits) (\(if $better == "lower" then "≤" else "≥" end) \($limit), \(if $met then "met" else "**missed**" end))"
    end;

# A figure of strata, and the way of mounting where it is not the one that is chosen unasked.
def our($strata; $unit): ($strata.median | shown($unit))
    + (if $strata == null or $strata.driver == "strata" then "" else ", `\($strata.driver)`" end);

def by($one; $other): if $one == null or $other == null or $other.median == 0 then null
    else $one.median / $other.median end;

# A line of the first table: a figure, and what it may be against overlay and against the fastest peer.
def line($id; $title; $overlay; $peer):
    figure($id) as $figure
    | if $figure == null then "| \($title) | not measured | | | | |"
      else ours($figure) as $strata | of($figure; "overlay") as $kernel | fastest($figure) as $best
        | "| \($title) | \(our($strata; $figure.unit)) | \($kernel.median | shown($figure.unit)) | "
          + judged(by($strata; $kernel); $overlay; $figure.better)
          + " | \($best.median | shown($figure.unit)) | " + judged(by($strata; $best); $peer; $figure.better) + " |"
      end;

# The same for a value that has a limit of its own.
def absolute($id; $title; $limit; $peer):
    figure($id) as $figure
    | if $figure == null then "| \($title) | not measured | | | | |"
      else ours($figure) as $strata | of($figure; "overlay") as $kernel | fastest($figure) as $best
        | "| \($title), at most \($limit | shown($figure.unit)) | \(our($strata; $figure.unit))"
          + (if $strata == null then "" elif $strata.median <= $limit then " (met)" else " (**missed**)" end)
          + " | \($kernel.median | shown($figure.unit)) | \(judged(by($strata; $kernel); null; "lower"))"
          + " | \($best.median | shown($figure.unit)) | \(judged(by($strata; $best); $peer; "lower")) |"
      end;

def size: $report.parameters.size;
# A number as people write it: 150,000.
def thousands: tostring | if length > 3 then .[:-3] + "," + .[-3:] else . end;
def big: if size.big_bytes == 1073741824 then "1 GiB" else size.big_bytes | shown("bytes") end;
def copied: size.copied_bytes | shown("bytes");

def worst_lookups:
    figure("lookups-idle") as $idle | figure("lookups-busy") as $busy
    | if $idle == null then "| lookups during a copy-up | not measured | | | | |"
      else of($idle; "strata") as $before | of($busy; "strata") as $during | fastest($busy) as $best
        | "| slowest lookup during a copy-up of \(copied) | \($during.median | shown("seconds")) | "
          + "\($before.median | shown("seconds")) (idle) | \(judged(by($during; $before); 2; "lower"))"
          + " | \($best.median | shown("seconds")) | \(judged(by($during; $best); 0.05; "lower")) |"
      end;

def lookup_bench:
    [$criterion[] | select(.name | test("lookup.*/there/")) | .seconds / .elements] as $times
    | if ($times | length) == 0 then "| a lookup in the chain index | not measured | | | | |"
      else ($times | max) as $worst
        | "| a lookup in the chain index, 150,000 inodes, at most 0.3 µs | \($worst | shown("seconds"))"
          + (if $worst <= 3e-7 then " (met)" else " (**missed**)" end) + " | | | | |"
      end;

def middle: sort | if length == 0 then null elif length % 2 == 1 then .[length / 2 | floor]
    else (.[length / 2 - 1] + .[length / 2]) / 2 end;

# Lines of what scripts/bench-peers has measured: {pull: {strata: [..], ..}, commit: {..}, memory: {strata: [..]}}.
def peer_line($what; $title; $limit):
    if $peers == null or $peers[$what] == null then "| \($title) | not measured | | | | |"
    else ($peers[$what] | map_values(middle)) as $medians
        | ($medians | to_entries | map(select(.key != "strata" and .value != null)) | min_by(.value)) as $best
        | ($medians.strata / $best.value) as $ratio
        | "| \($title) | \($medians.strata | shown("seconds")) | | | \($best.value | shown("seconds")) (\($best.key)) | "
          + judged($ratio; $limit; "lower") + " |"
    end;
def peer_memory:
    if $peers == null or $peers.memory == null then "| peak memory of that pull | not measured | | | | |"
    else ($peers.memory.strata | middle) as $memory
        | "| peak memory of that pull, at most 100 MB | \($memory | shown("bytes"))"
          + (if $memory <= 1e8 then " (met)" else " (**missed**)" end) + " | | | | |"
    end;

def targets:
    "| workload | strata | overlayfs | strata by it | fastest fuse-overlayfs | strata by it |",
    "|---|--:|--:|---|--:|---|",
    line("walk-cold"; "cold walk and lstat of \(size.tree_entries | thousands) files in \(size.layers) layers, from the disk"; 0.5; 0.25),
    line("walk-first"; "first walk and lstat in a mount, disk in memory"; 0.5; 0.25),
    line("walk-warm"; "warm walk"; 1.0; 1.0),
    line("negative-again"; "negative lookups, repeated"; 1.0; 1.0),
    line("small-read-again"; "open, read, close of all small files, second time"; 1.0; 0.3),
    line("small-read-first"; "the same, first time"; 2.5; 0.5),
    line("large-again"; "\(big) sequential, warm"; 0.95; 1.0),
    line("random"; "random 4 KiB"; 0.95; 1.0),
    line("mmap-again"; "mmap"; 0.95; 1.0),
    line("large-first"; "\(big) sequential, cold in strata, warm in the object"; 0.8; 1.0),
    line("create"; "create, write 4 KiB, close, \(size.created | thousands) files"; 3; 0.35),
    line("unlink-lower"; "unlink of lower files"; 2.5; 0.15),
    line("chmod"; "chmod -R of a lower tree"; 2.5; 0.15),
    worst_lookups,
    absolute("mount-1"; "mount of \(size.deep_entries | thousands) inodes, 1 layer"; 0.015; null),
    absolute("mount-500"; "the same, 500 layers"; 0.015; null),
    absolute("memory-own"; "server memory after walking \(size.deep_entries | thousands) inodes"; 15e6; 0.3),
    lookup_bench,
    peer_line("pull"; "pull and ready to mount, Debian in 4 layers"; 0.5),
    peer_line("commit"; "commit of 100 changed files"; 0.2),
    peer_memory;

def all_drivers: $report.drivers | map(.name);
def cell($figure; $driver):
    (first($figure.results[] | select(.driver == $driver)) // null)
    | if . == null or .median == null then "–"
      else (.median | shown($figure.unit)) + (if .ratio == null or $driver == $report.parameters.base then ""
           else " (\(.ratio | digits))" end) end;
def figures:
    "| figure | \(all_drivers | join(" | ")) |",
    "|---|" + ([all_drivers[] | "--:"] | join("|")) + "|",
    ($report.workloads[].figures[] as $figure
        | "| \($figure.title) | " + ([all_drivers[] as $driver | cell($figure; $driver)] | join(" | ")) + " |");

def parts:
    if ($criterion | length) == 0 then "`scripts/bench criterion` has not measured yet." else
    "| benchmark | median | each |",
    "|---|--:|--:|",
    ($criterion[] | "| `\(.name)` | \(.seconds | shown("seconds")) | "
        + (if .bytes != null then (.bytes / .seconds | shown("bytes-per-second"))
           else (.seconds / .elements | shown("seconds")) end) + " |") end;

def peers:
    if $peers == null then "`scripts/bench-peers` has not measured yet."
    else ($peers.pull | keys_unsorted) as $names
        | "| | \($names | join(" | ")) |", "|---|" + ([$names[] | "--:"] | join("|")) + "|",
          (["pull", "pull and ready to mount"], ["commit", "commit of 100 changed files"] | . as [$what, $title]
            | "| \($title) | " + ([$names[] as $name | ($peers[$what][$name] // [] | middle) | shown("seconds")] | join(" | ")) + " |"),
          "", "Medians of \($peers.runs) runs, \($peers.image). Versions: \($peers.versions | join("; "))."
    end;

# How often the figures were measured: "3" or "3 to 5".
def runs: [$report.workloads[].figures[].results[].values | length | select(. > 0)] | unique
    | if length > 1 then "\(first) to \(last)" else "\(first // 0)" end;

def machine: $report.machine
    | "\(.system), Linux \(.kernel), \(.architecture), \(.processors) × \(.processor), "
      + "\(.memory_bytes / 1073741824 | digits) GiB of memory, \(.file_system), as \(if .is_root then "root" else "a user" end). "
      + "Size \($report.parameters.size.name), runs of each: \(runs); "
      + ([$report.drivers[] | select(.version != "") | "\(.name): \(.version)"] | join("; ")) + "."
      + (if size.name != "full" or ([runs | scan("[0-9]+") | tonumber] | min) < 5 then
           " This is not the whole measurement, which is of size full with 5 runs: a ratio that is near its limit may be on the "
           + "other side of it next time." else "" end);

"<!-- begin: machine -->", machine, "<!-- end -->",
"<!-- begin: targets -->", targets, "<!-- end -->",
"<!-- begin: figures -->", figures, "<!-- end -->",
"<!-- begin: parts -->", parts, "<!-- end -->",
"<!-- begin: peers -->", peers, "<!-- end -->"
