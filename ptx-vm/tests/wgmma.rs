//! `wgmma` of all shapes, types and layouts against plain arithmetic on whole numbers.
//!
//! Matrices are laid out as the PTX ISA ("Shared Memory Matrix Layout") and CUTLASS say, element by element.

use half::{bf16, f16};
use ptx_vm::{Checks, Device, Error, FaultKind, Launch, Module, Parameters};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Type {
    F16,
    Bf16,
    Tf32,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Type::F16 => "f16",
            Type::Bf16 => "bf16",
            Type::Tf32 => "tf32",
        }
    }

    fn bytes(self) -> usize {
        if self == Type::Tf32 { 4 } else { 2 }
    }

    /// Columns of A.
    fn depth(self) -> usize {
        32 / self.bytes()
    }

    fn encode(self, value: f32) -> Vec<u8> {
        match self {
            Type::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
            Type::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
            Type::Tf32 => value.to_le_bytes().to_vec(),
        }
    }
}

/// How a matrix lies in shared memory.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Bytes within which units change places, 16 for none.
    span: usize,
    /// Whether rows lie side by side, and not K.
    transposed: bool,
    /// Where in a row of the swizzle's span it begins.
    first: usize,
}

/// Bytes from one group of 8 rows to the next, where it can be any.
const GROUP: usize = 1024;

impl Layout {
    /// Leading and stride byte offset.
    fn strides(self) -> (usize, usize) {
        match (self.span, self.transposed) {
            (16, false) => (128, GROUP),
            (16, true) => (GROUP, 128),
            (_, false) => (0, GROUP),
            (_, true) => (2 * GROUP, GROUP),
        }
    }

    /// The byte of an element.
    fn place(self, row: usize, k: usize, bytes: usize) -> usize {
        let (leading, stride) = self.strides();
        let unit = 16 / bytes;
        let linear = match (self.span, self.transposed) {
            (16, false) => row / 8 * stride + row % 8 * 16 + k / unit * leading + k % unit * bytes,
            (16, true) => row / 8 * stride + row % 8 * 2 + k / 8 * leading + k % 8 * 16,
            (span, false) => row / 8 * stride + row % 8 * span + k * bytes,
            (span, true) => {
                let rows = span / 2;
                row / rows * leading + row % rows * 2 + k / 8 * stride + k % 8 * span
            }
        };
        let at = linear + self.first;
        let moved = (at / 128) & (self.span / 16 - 1);
        at ^ (moved * 16)
    }

    fn descriptor(self, start: usize) -> u64 {
        let (leading, stride) = self.strides();
        let mode = match self.span {
            16 => 0,
            128 => 1,
            64 => 2,
            _ => 3,
        };
        ((start + self.first) as u64 >> 4) | (leading as u64 >> 4) << 16 | (stride as u64 >> 4) << 32 | mode << 62
    }
}

#[derive(Debug, Clone, Copy)]
struct Case {
    ty: Type,
    n: usize,
    /// None where it is in registers.
    a: Option<Layout>,
    b: Layout,
    adds: bool,
    signs: [i32; 2],
}

/// Between -4 and 4.
fn value(i: usize, of: usize) -> f32 {
    ((i * 37 + of * 101 + i / 7) % 9) as f32 - 4.0
}

/// The accumulator before the product.
fn before(row: usize, column: usize) -> f32 {
    (row * 3 + column) as f32
}

/// Where in shared memory B begins.
const OF_B: usize = 64 << 10;

fn ptx(case: &Case) -> String {
    let Case { ty, n, a, b, signs, .. } = *case;
    let (name, k, registers) = (ty.name(), ty.depth(), n / 2);
    let d: Vec<_> = (0..registers).map(|i| format!("%f{i}")).collect();
    let each = |text: &dyn Fn(usize) -> String| (0..registers).map(text).collect::<String>();
    let load = each(&|i| format!("ld.global.f32 %f{i}, [%rd7+{}];\n", 4 * i));
    let store = each(&|i| format!("st.global.f32 [%rd7+{}], %f{i};\n", 4 * i));
    let of_a = if a.is_some() { "%rd3".to_owned() } else { "{%r10, %r11, %r12, %r13}".to_owned() };
    let transposes = match (ty, a) {
        (Type::Tf32, _) => String::new(),
        (_, None) => format!(", {}", u32::from(b.transposed)),
        (_, Some(a)) => format!(", {}, {}", u32::from(a.transposed), u32::from(b.transposed)),
    };
    format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.extern .shared .align 1024 .b8 shared[];\n\
         .visible .entry test(.param .u64 image, .param .u64 a, .param .u64 b, .param .u64 out, .param .u64 of_a,\n\
         .param .u32 words, .param .u32 adds) {{\n\
         .reg .pred %p<3>; .reg .b32 %r<20>; .reg .b64 %rd<12>; .reg .f32 %f<128>;\n\
         mov.u32 %r1, %tid.x; mov.u32 %r2, %r1; mov.u32 %r3, shared;\n\
         ld.param.u64 %rd1, [image]; ld.param.u32 %r4, [words];\n\
         loop: setp.ge.u32 %p1, %r2, %r4; @%p1 bra done;\n\
         mul.wide.u32 %rd2, %r2, 4; add.s64 %rd2, %rd1, %rd2; ld.global.u32 %r5, [%rd2];\n\
         shl.b32 %r6, %r2, 2; add.u32 %r6, %r3, %r6; st.shared.u32 [%r6], %r5;\n\
         add.u32 %r2, %r2, 128; bra loop;\n\
         done: fence.proxy.async; bar.sync 0;\n\
         cvt.u64.u32 %rd2, %r3; shr.u64 %rd2, %rd2, 4;\n\
         ld.param.u64 %rd3, [a]; add.s64 %rd3, %rd3, %rd2; ld.param.u64 %rd4, [b]; add.s64 %rd4, %rd4, %rd2;\n\
         ld.param.u64 %rd5, [of_a]; mul.wide.u32 %rd6, %r1, 16; add.s64 %rd5, %rd5, %rd6;\n\
         ld.global.v4.u32 {{%r10, %r11, %r12, %r13}}, [%rd5];\n\
         ld.param.u64 %rd7, [out]; mul.wide.u32 %rd6, %r1, {bytes}; add.s64 %rd7, %rd7, %rd6;\n\
         {load}\
         ld.param.u32 %r7, [adds]; setp.ne.u32 %p2, %r7, 0;\n\
         wgmma.fence.sync.aligned;\n\
         wgmma.mma_async.sync.aligned.m64n{n}k{k}.f32.{name}.{name} {{{d}}}, {of_a}, %rd4, %p2, {}, {}{transposes};\n\
         wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n\
         {store}ret;\n}}",
        signs[0],
        signs[1],
        bytes = 4 * registers,
        d = d.join(", ")
    )
}

/// What a lane's registers hold: row and column.
fn element(thread: usize, register: usize) -> (usize, usize) {
    let (warp, lane) = (thread / 32, thread % 32);
    (warp * 16 + lane / 4 + register / 2 % 2 * 8, register / 4 * 8 + lane % 4 * 2 + register % 2)
}

fn run(case: &Case, checks: Checks) -> Result<Vec<f32>, Error> {
    let Case { ty, n, a, b, adds, .. } = *case;
    let (k, bytes) = (ty.depth(), ty.bytes());
    let mut image = vec![0_u8; 192 << 10];
    let mut put = |at: usize, value: f32| image[at..at + bytes].copy_from_slice(&ty.encode(value));
    for (row, column) in (0..64).flat_map(|row| (0..k).map(move |column| (row, column))) {
        if let Some(a) = a {
            put(a.place(row, column, bytes), value(row * k + column, 0));
        }
    }
    for (column, row) in (0..n).flat_map(|column| (0..k).map(move |row| (column, row))) {
        put(OF_B + b.place(column, row, bytes), value(column * k + row, 1));
    }
    let packed = 4 / bytes;
    let mut of_a = Vec::new();
    for (thread, register) in (0..128).flat_map(|thread| (0..4).map(move |register| (thread, register))) {
        let row = thread / 32 * 16 + thread % 32 / 4 + register % 2 * 8;
        let first = register / 2 * 4 * packed + thread % 4 * packed;
        of_a.extend((0..packed).flat_map(|i| ty.encode(value(row * k + first + i, 0))));
    }
    let accumulators: Vec<u8> = (0..128 * n / 2)
        .flat_map(|i| {
            let (row, column) = element(i / (n / 2), i % (n / 2));
            before(row, column).to_le_bytes()
        })
        .collect();

    let module = Module::load(&ptx(case))?;
    let mut device = Device::new();
    let (image_in, of_a) = (device.upload("image", &image), device.upload("a", &of_a));
    let out = device.upload("out", &accumulators);
    let parameters = Parameters::new()
        .pointer(image_in)
        .u64(a.map_or(0, |a| a.descriptor(0)))
        .u64(b.descriptor(OF_B))
        .pointer(out)
        .pointer(of_a)
        .u32(image.len() as u32 / 4)
        .u32(adds.into());
    let launch = Launch { block: [128, 1, 1], dynamic_shared: image.len() as u32, checks, ..Launch::default() };
    device.launch(&module, "test", &launch, parameters.bytes())?;
    Ok(device.read(out)?.chunks(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect())
}

fn check(case: &Case, checks: Checks) {
    let Case { ty, n, adds, signs, .. } = *case;
    let k = ty.depth();
    let expected: Vec<f32> = (0..128 * n / 2)
        .map(|i| {
            let (row, column) = element(i / (n / 2), i % (n / 2));
            let products = (0..k).map(|l| value(row * k + l, 0) * value(column * k + l, 1));
            let sum = products.sum::<f32>() * (signs[0] * signs[1]) as f32;
            if adds { sum + before(row, column) } else { sum }
        })
        .collect();
    let out = run(case, checks).unwrap_or_else(|error| panic!("{case:?}: {error}"));
    assert!(out == expected, "{case:?}");
}

fn layouts(ty: Type) -> Vec<Layout> {
    let along_k = [(16, 0), (32, 0), (64, 0), (64, 32), (128, 0), (128, 32), (128, 96)];
    let mut layouts: Vec<_> = along_k.iter().map(|&(span, first)| Layout { span, transposed: false, first }).collect();
    if ty != Type::Tf32 {
        layouts.extend([16, 32, 64, 128].map(|span| Layout { span, transposed: true, first: 0 }));
    }
    layouts
}

#[test]
fn layouts_of_b() {
    for ty in [Type::F16, Type::Bf16, Type::Tf32] {
        for b in layouts(ty) {
            check(&Case { ty, n: 64, a: None, b, adds: true, signs: [1, 1] }, Checks::Bounds);
        }
    }
}

#[test]
fn layouts_of_a() {
    for ty in [Type::F16, Type::Bf16, Type::Tf32] {
        for a in layouts(ty) {
            let b = Layout { span: 128, transposed: false, first: 0 };
            check(&Case { ty, n: 8, a: Some(a), b, adds: false, signs: [1, 1] }, Checks::Bounds);
        }
    }
}

#[test]
fn shapes_and_signs() {
    let layout = Layout { span: 128, transposed: false, first: 64 };
    for (i, n) in (8..=256).step_by(8).enumerate() {
        let ty = [Type::Bf16, Type::Tf32, Type::F16][i % 3];
        let signs = [[1, 1], [-1, 1], [1, -1], [-1, -1]][i % 4];
        check(&Case { ty, n, a: Some(layout), b: layout, adds: i % 2 == 0, signs }, Checks::Bounds);
    }
}

#[test]
fn all_checks_find_nothing() {
    let layout = Layout { span: 128, transposed: false, first: 0 };
    check(&Case { ty: Type::Bf16, n: 256, a: Some(layout), b: layout, adds: true, signs: [1, 1] }, Checks::Full);
}

#[test]
fn what_a_descriptor_must_not_say() {
    let b = Layout { span: 128, transposed: false, first: 128 };
    let case = Case { ty: Type::Bf16, n: 8, a: None, b, adds: true, signs: [1, 1] };
    let error = run(&case, Checks::Bounds).unwrap_err();
    assert_eq!(error.fault().map(|fault| fault.kind), Some(FaultKind::Undefined), "{error}");
}

#[test]
fn what_is_not_in_the_table() {
    let product = |text: &str| {
        Module::load(&format!(
            ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry test() {{\n\
             .reg .pred %p<2>; .reg .b32 %r<8>; .reg .b64 %rd<3>; .reg .f32 %f<8>;\n{text}\n}}"
        ))
        .map(|_| ())
    };
    let d = "{%f0, %f1, %f2, %f3}";
    let of = "wgmma.mma_async.sync.aligned.";
    assert!(product(&format!("{of}m64n8k16.f32.bf16.bf16 {d}, %rd1, %rd2, %p1, 1, 1, 0, 0;")).is_ok());
    for text in [
        format!("{of}m64n12k16.f32.bf16.bf16 {d}, %rd1, %rd2, %p1, 1, 1, 0, 0;"),
        format!("{of}m64n8k8.f32.bf16.bf16 {d}, %rd1, %rd2, %p1, 1, 1, 0, 0;"),
        format!("{of}m64n8k16.f32.bf16.bf16 {d}, %rd1, %rd2, %p1, 2, 1, 0, 0;"),
        format!("{of}m64n8k16.f32.bf16.bf16 {d}, %rd1, %rd2, %p1, 1, 1, 2, 0;"),
        format!("{of}m64n8k16.f32.bf16.bf16 {d}, %rd1, %rd2, %p1, 1, 1;"),
        format!("{of}m64n16k16.f32.bf16.bf16 {d}, %rd1, %rd2, %p1, 1, 1, 0, 0;"),
        format!("{of}m64n8k16.f16.f16.f16 {{%r1, %r2}}, %rd1, %rd2, %p1, 1, 1, 0, 0;"),
        format!("{of}m64n8k32.f32.e4m3.e4m3 {d}, %rd1, %rd2, %p1, 1, 1;"),
        "wgmma.wait_group.sync.aligned %r1;".to_owned(),
    ] {
        assert!(matches!(product(&text), Err(Error::Unsupported { .. })), "{text}");
    }
}
