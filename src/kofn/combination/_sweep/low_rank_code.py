"""Low-rank updates of bfloat16 weights in LLVM's assembly: the text that `low_rank_loops` compiles.

Sums are taken in float32 first, with a bound on their error. Where every number within the bound rounds to the same
bfloat16, that is what the exact sum rounds to; elsewhere, in few of a thousand entries, sums in float64 decide.
"""

from __future__ import annotations

from kofn.combination._sweep.half_loops import PARTS
from kofn.engines.machine_code import loop

SEGMENT = 2048  # sums that are looked through again where one of them is half-way
COLUMNS = 256  # columns at a time: their part of the factors stays in the fastest cache
CHECKED = 64  # sums that are taken again in float64 where one of them is uncertain
TOGETHER = 4  # rows whose sums are taken together, so that a number of the right factor is read once for all
WIDTH = 16  # numbers of a vector, which LLVM cuts to the processor's
SCRATCH = 4 * TOGETHER * COLUMNS + 8 * CHECKED  # bytes: sums in float32, and in float64

# A bfloat16 and an update in float64, added and rounded to float32.
_ADD = """
  %from = getelementptr i16, ptr %words, i64 %i
  %word = load i16, ptr %from
  %number = call float @wide(i16 %word)
  %long = fpext float %number to double
  %added = getelementptr double, ptr %update, i64 %i
  %change = load double, ptr %added
  %total = fadd double %long, %change
  %single = fptrunc double %total to float
  %bits = bitcast float %single to i32
  %lower = and i32 %bits, 65535
  %halfway = icmp eq i32 %lower, 32768
  %upper = lshr i32 %bits, 16
  %odd = and i32 %upper, 1
  %to = getelementptr i16, ptr %out, i64 %i
"""
# Bit 0 of what is carried: some float32 lies half-way between two bfloat16. Bit 1: some sum is infinite or NaN.
_ROUND = """
  %half = add i32 %odd, 32767
  %sum = add i32 %bits, %half
  %near = lshr i32 %sum, 16
  %short = trunc i32 %near to i16
  store i16 %short, ptr %to
  %exponent = and i32 %near, 32640
  %endless = icmp eq i32 %exponent, 32640
  %beyond = select i1 %endless, i32 2, i32 0
  %between = zext i1 %halfway to i32
  %flag = or i32 %beyond, %between
  %carried = or i32 %before, %flag
"""
# Where the float32 lies half-way, the float64 sum may not, and it decides.
_SETTLE = """
  %exact = call double @llvm.fabs.f64(double %total)
  %through = fpext float %single to double
  %rounded = call double @llvm.fabs.f64(double %through)
  %farther = fcmp ogt double %exact, %rounded
  %tied = fcmp oeq double %exact, %rounded
  %isodd = icmp ne i32 %odd, 0
  %even = and i1 %tied, %isodd
  %up = or i1 %farther, %even
  %step = zext i1 %up to i32
  %settled = add i32 %upper, %step
  %short = trunc i32 %settled to i16
  %present = load i16, ptr %to
  %kept = select i1 %halfway, i16 %short, i16 %present
  store i16 %kept, ptr %to
  %exponent = and i16 %kept, 32640
  %endless = icmp eq i16 %exponent, 32640
  %beyond = select i1 %endless, i32 2, i32 0
  %carried = or i32 %before, %beyond
"""
_ADD_ROUNDED = """
define i1 @add_rounded(ptr noalias %words, ptr noalias %update, ptr noalias %out, i64 %n) {
start:
  %none = icmp eq i64 %n, 0
  br i1 %none, label %end, label %loop
loop:
  %i = phi i64 [ 0, %start ], [ %stop, %after ]
  %before = phi i32 [ 0, %start ], [ %flags, %after ]
  %left = sub i64 %n, %i
  %length = call i64 @llvm.umin.i64(i64 %left, i64 SEGMENT)
  %from = getelementptr i16, ptr %words, i64 %i
  %added = getelementptr double, ptr %update, i64 %i
  %to = getelementptr i16, ptr %out, i64 %i
  %flag = call i32 @round(ptr %from, ptr %added, ptr %to, i64 %length)
  %between = and i32 %flag, 1
  %clear = icmp eq i32 %between, 0
  br i1 %clear, label %after, label %again
again:
  %anew = call i32 @settle(ptr %from, ptr %added, ptr %to, i64 %length)
  br label %after
after:
  %known = phi i32 [ %flag, %loop ], [ %anew, %again ]
  %flags = or i32 %before, %known
  %stop = add nuw nsw i64 %i, %length
  %last = icmp eq i64 %stop, %n
  br i1 %last, label %end, label %loop
end:
  %all = phi i32 [ 0, %start ], [ %flags, %after ]
  %beyond = and i32 %all, 2
  %finite = icmp eq i32 %beyond, 0
  ret i1 %finite
}
""".replace("SEGMENT", str(SEGMENT))
# A bfloat16 and an update in float32, added; `out` gets what the upper end of the error's range rounds to (half-way up:
# what is half-way is uncertain). Bit 0 of what is carried: some lower end rounds to another bfloat16. Bit 1: some end
# is infinite or NaN. The range also covers the rounding of this addition and of its ends: 2^-23 of the sum, and more.
_NEAR = """
  %from = getelementptr i16, ptr %words, i64 %i
  %word = load i16, ptr %from
  %number = call float @wide(i16 %word)
  %added = getelementptr float, ptr %update, i64 %i
  %change = load float, ptr %added
  %total = fadd float %number, %change
  %size = call float @llvm.fabs.f32(float %total)
  %own = fmul contract float %size, 0x3E81000000000000
  %reach = fadd contract float %own, %error
  %low = fsub float %total, %reach
  %high = fadd float %total, %reach
  %lower = bitcast float %low to i32
  %below = add i32 %lower, 32768
  %upper = bitcast float %high to i32
  %above = add i32 %upper, 32768
  %near = lshr i32 %above, 16
  %short = trunc i32 %near to i16
  %to = getelementptr i16, ptr %out, i64 %i
  store i16 %short, ptr %to
  %change1 = xor i32 %below, %above
  %apart = icmp ugt i32 %change1, 65535
  %uncertain = zext i1 %apart to i32
  %exponent = and i32 %above, 2139095040
  %endless = icmp eq i32 %exponent, 2139095040
  %beyond = select i1 %endless, i32 2, i32 0
  %flag = or i32 %beyond, %uncertain
  %carried = or i32 %before, %flag
"""
# The sums of one row of weights, in float64, of which there are always `CHECKED`: the factors are padded.
_EXACT_SUMS = (
    """
define internal void @exact_sums(ptr noalias %left, ptr noalias %right, i64 %rank, ptr noalias %sums)
    noinline "prefer-vector-width"="512" nounwind {
start:
  br label %part
part:
  %c = phi i64 [ 0, %start ], [ %c1, %store ]
  %c1 = add nuw nsw i64 %c, WIDTH
  %begin = getelementptr double, ptr %right, i64 %c
  br label %loop
loop:
  %k = phi i64 [ 0, %part ], [ %k1, %loop ]
  %before = phi <WIDTH x double> [ zeroinitializer, %part ], [ %sum, %loop ]
  %k1 = add nuw nsw i64 %k, 1
  %place = mul i64 %k, COLUMNS
  %row = getelementptr double, ptr %begin, i64 %place
  %numbers = load <WIDTH x double>, ptr %row, align 8
  %slot = getelementptr double, ptr %left, i64 %k
  %factor = load double, ptr %slot
  %one = insertelement <WIDTH x double> poison, double %factor, i64 0
  %all = shufflevector <WIDTH x double> %one, <WIDTH x double> poison, <WIDTH x i32> zeroinitializer
  %product = fmul <WIDTH x double> %numbers, %all
  %sum = fadd <WIDTH x double> %before, %product
  %last = icmp eq i64 %k1, %rank
  br i1 %last, label %store, label %loop
store:
  %to = getelementptr double, ptr %sums, i64 %c
  store <WIDTH x double> %sum, ptr %to, align 8
  %isend = icmp eq i64 %c1, CHECKED
  br i1 %isend, label %end, label %part
end:
  ret void
}
""".replace("WIDTH", str(WIDTH))
    .replace("COLUMNS", str(COLUMNS))
    .replace("CHECKED", str(CHECKED))
)
# Where the rows that are taken together lie in the left factor; where there are fewer, the last one stands for others.
_OTHERS = "\n".join(
    f"""  %next{row} = add nuw nsw i64 %i, {row}
  %most{row} = sub i64 %rows, 1
  %own{row} = call i64 @llvm.umin.i64(i64 %next{row}, i64 %most{row})
  %begin{row} = mul i64 %own{row}, %rank
  %left{row} = getelementptr float, ptr %left, i64 %begin{row}"""
    for row in range(TOGETHER)
)
_FOLD = """
define i1 @fold(ptr noalias %words, ptr noalias %left, ptr noalias %right, ptr noalias %errors, ptr noalias %exactleft,
                ptr noalias %exactright, ptr noalias %out, ptr noalias %scratch, i64 %rows, i64 %columns, i64 %rank) {
start:
  %norows = icmp eq i64 %rows, 0
  %nocolumns = icmp eq i64 %columns, 0
  %none = or i1 %norows, %nocolumns
  %exactsums = getelementptr float, ptr %scratch, i64 SUMS
  br i1 %none, label %end, label %segment
segment:
  %j = phi i64 [ 0, %start ], [ %stop, %segmentend ]
  %beforesegment = phi i32 [ 0, %start ], [ %flags, %segmentend ]
  %toright = sub i64 %columns, %j
  %length = call i64 @llvm.umin.i64(i64 %toright, i64 COLUMNS)
  %rightplace = mul i64 %j, %rank
  %rightpart = getelementptr float, ptr %right, i64 %rightplace
  %exactsegment = getelementptr double, ptr %exactright, i64 %rightplace
  br label %row
row:
  %i = phi i64 [ 0, %segment ], [ %i1, %rowend ]
  %beforerow = phi i32 [ %beforesegment, %segment ], [ %flags, %rowend ]
  %i1 = add nuw nsw i64 %i, 1
  %place = mul i64 %i, %columns
  %begin = add i64 %place, %j
  %leftplace = mul i64 %i, %rank
  %slot = getelementptr float, ptr %errors, i64 %i
  %error = load float, ptr %slot
  %which = urem i64 %i, TOGETHER
  %offset = mul i64 %which, COLUMNS
  %updates = getelementptr float, ptr %scratch, i64 %offset
  %isfirst = icmp eq i64 %which, 0
  br i1 %isfirst, label %several, label %check
several:
OTHERS
  call void @sums(ptr %rightpart, i64 %rank, ptr %scratchROWS, i64 %length)
  br label %check
check:
  %c = phi i64 [ 0, %row ], [ 0, %several ], [ %c1, %checked ]
  %before = phi i32 [ %beforerow, %row ], [ %beforerow, %several ], [ %flags, %checked ]
  %rest = sub i64 %length, %c
  %n = call i64 @llvm.umin.i64(i64 %rest, i64 CHECKED)
  %position = add i64 %begin, %c
  %from = getelementptr i16, ptr %words, i64 %position
  %to = getelementptr i16, ptr %out, i64 %position
  %update = getelementptr float, ptr %updates, i64 %c
  %flag = call i32 @near(ptr %from, ptr %update, float %error, ptr %to, i64 %n)
  %uncertain = and i32 %flag, 1
  %clear = icmp eq i32 %uncertain, 0
  br i1 %clear, label %checked, label %again
again:
  %exactrow = getelementptr double, ptr %exactleft, i64 %leftplace
  %exactpart = getelementptr double, ptr %exactsegment, i64 %c
  call void @exact_sums(ptr %exactrow, ptr %exactpart, i64 %rank, ptr %exactsums)
  %finite = call i1 @add_rounded(ptr %from, ptr %exactsums, ptr %to, i64 %n)
  %anew = select i1 %finite, i32 0, i32 2
  br label %checked
checked:
  %known = phi i32 [ %flag, %check ], [ %anew, %again ]
  %flags = or i32 %before, %known
  %c1 = add nuw nsw i64 %c, %n
  %isrow = icmp eq i64 %c1, %length
  br i1 %isrow, label %rowend, label %check
rowend:
  %isblock = icmp eq i64 %i1, %rows
  br i1 %isblock, label %segmentend, label %row
segmentend:
  %stop = add nuw nsw i64 %j, %length
  %last = icmp eq i64 %stop, %columns
  br i1 %last, label %end, label %segment
end:
  %all = phi i32 [ 0, %start ], [ %flags, %segmentend ]
  %beyond = and i32 %all, 2
  %good = icmp eq i32 %beyond, 0
  ret i1 %good
}
""".replace("OTHERS", _OTHERS).replace("ROWS", "".join(f", ptr %left{row}" for row in range(TOGETHER)))


def text() -> str:
    """The functions `fold` and `add_rounded`, with what they call."""
    numbers = {"SUMS": TOGETHER * COLUMNS, "COLUMNS": COLUMNS, "TOGETHER": TOGETHER, "CHECKED": CHECKED}
    fold = _FOLD
    for word, number in numbers.items():
        fold = fold.replace(word, str(number))
    given = ("ptr %words", "ptr %update", "ptr %out")
    parts = [
        PARTS,
        "declare float @llvm.fabs.f32(float)\ndeclare double @llvm.fabs.f64(double)\n",
        loop("round", given, _ADD + _ROUND, carried=("i32", "0"), internal=True),
        loop("settle", given, _ADD + _SETTLE, carried=("i32", "0"), internal=True),
        _ADD_ROUNDED,
        loop("near", (*given[:2], "float %error", given[2]), _NEAR, carried=("i32", "0"), internal=True),
        _sums(),
        _EXACT_SUMS,
        fold,
    ]
    return "".join(parts)


def _sums() -> str:
    """The function that takes the sums of four rows of weights in float32, of which there are always `COLUMNS`."""
    kind, lanes = f"<{WIDTH} x float>", range(TOGETHER)
    rows = "".join(f", ptr noalias %left{row}" for row in lanes)
    befores = [f"  %before{row} = phi {kind} [ zeroinitializer, %part ], [ %sum{row}, %loop ]" for row in lanes]
    steps = []
    for row in lanes:
        steps += [
            f"  %slot{row} = getelementptr float, ptr %left{row}, i64 %k",
            f"  %factor{row} = load float, ptr %slot{row}",
            f"  %one{row} = insertelement {kind} poison, float %factor{row}, i64 0",
            f"  %all{row} = shufflevector {kind} %one{row}, {kind} poison, <{WIDTH} x i32> zeroinitializer",
            f"  %product{row} = fmul contract {kind} %numbers, %all{row}",
            f"  %sum{row} = fadd contract {kind} %before{row}, %product{row}",
        ]
    stores = []
    for row in lanes:
        stores += [
            f"  %place{row} = add nuw nsw i64 %c, {row * COLUMNS}",
            f"  %to{row} = getelementptr float, ptr %sums, i64 %place{row}",
            f"  store {kind} %sum{row}, ptr %to{row}, align 4",
        ]
    lines = [
        f"define internal void @sums(ptr noalias %right, i64 %rank, ptr noalias %sums{rows}, i64 %columns)",
        '    noinline "prefer-vector-width"="512" nounwind {',
        "start:",
        "  br label %part",
        "part:",
        "  %c = phi i64 [ 0, %start ], [ %c1, %store ]",
        f"  %c1 = add nuw nsw i64 %c, {WIDTH}",
        "  %begin = getelementptr float, ptr %right, i64 %c",
        "  br label %loop",
        "loop:",
        "  %k = phi i64 [ 0, %part ], [ %k1, %loop ]",
        *befores,
        "  %k1 = add nuw nsw i64 %k, 1",
        f"  %place = mul i64 %k, {COLUMNS}",
        "  %row = getelementptr float, ptr %begin, i64 %place",
        f"  %numbers = load {kind}, ptr %row, align 4",
        *steps,
        "  %last = icmp eq i64 %k1, %rank",
        "  br i1 %last, label %store, label %loop",
        "store:",
        *stores,
        "  %isend = icmp uge i64 %c1, %columns",
        "  br i1 %isend, label %end, label %part",
        "end:",
        "  ret void",
        "}",
    ]
    return "\n".join(lines)
