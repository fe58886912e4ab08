//! The parser on what nvcc writes, on what nvcc would never write, and on everything between.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::{Index, select};

use ptx_vm::parse::ast::{Function, Operand, SourceLine, Space};
use ptx_vm::parse::parse;

/// nvcc's work on `parser.cu`.
const PTX: &str = include_str!("data/parser.ptx");

fn kernel() -> Function {
    let functions = parse(PTX).expect("nvcc's PTX").functions;
    functions.into_iter().find(|function| function.is_entry).expect("a kernel")
}

#[test]
fn module_of_nvcc() {
    let module = parse(PTX).expect("nvcc's PTX");
    assert_eq!((module.version.as_str(), module.target.as_str()), ("9.0", "sm_80"));
    assert_eq!(module.files[&1], "parser.cu");
    let functions: Vec<_> = module.functions.iter().map(|f| (f.name.as_str(), f.is_defined, f.params.len())).collect();
    assert_eq!(
        functions,
        [
            ("vprintf", false, 2),
            ("__assertfail", false, 5),
            ("_Z8heaviest4PairS_", true, 2),
            ("_Z6chooseif", true, 2),
            ("_Z8features6MatrixPfii", true, 4),
        ]
    );
    let variable = |name| module.variables.iter().find(|variable| variable.name == name).expect("a variable");
    assert_eq!(variable("precise").initial, 3.25f64.to_le_bytes());
    assert_eq!(variable("managed_value").initial, 2f32.to_le_bytes());
    assert_eq!(variable("offsets").initial[24..], (-4i64).to_le_bytes());
    assert_eq!((variable("flags").size, variable("flags").initial.len()), (Some(4), 3));
    assert_eq!((variable("dynamic_shared").size, variable("dynamic_shared").align), (None, 16));
}

#[test]
fn kernel_of_nvcc() {
    let kernel = kernel();
    let params: Vec<_> = kernel.params.iter().map(|param| (param.align, param.size)).collect();
    assert_eq!(params, [(8, Some(32)), (8, Some(8)), (4, Some(4)), (4, Some(4))]);
    let tile = kernel.variables.iter().find(|variable| variable.space == Space::Shared).expect("the tile");
    assert_eq!(tile.size, Some(32 * 33 * 4));
    assert!(kernel.labels.values().all(|index| *index < kernel.instructions.len()));

    let exchange = kernel.instructions.iter().find(|i| i.opcode == "shfl.sync.bfly.b32").expect("the exchange");
    assert!(matches!(&exchange.operands[0], Operand::Pair(..)));
    // Within the header that defines the shuffle, not where the kernel calls it.
    assert_eq!(exchange.source.file, 2);

    let last = kernel.instructions.last().expect("an instruction");
    assert_eq!((last.text.as_str(), last.source.file), ("ret;", 1));
    assert_ne!(last.source, SourceLine::default());
}

#[test]
fn names_are_declared_once_in_a_function() {
    let kernel = kernel();
    let registers = kernel.registers.iter().map(|set| &set.name);
    let variables = kernel.variables.iter().map(|variable| &variable.name);
    let mut names: Vec<_> = registers.chain(variables).chain(kernel.labels.keys()).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// Hostile texts of about a mebibyte: parsing takes time in proportion to the text, and bounded stack and memory.
#[test]
fn hostile_texts_end_soon() {
    let body = |statement: &str| format!(".entry e() {{ {}", statement.repeat((1 << 20) / statement.len()));
    let module = |declaration: &str| declaration.repeat((1 << 20) / declaration.len());
    let texts = [
        module("{"),
        module("\""),
        module("/*"),
        module("//"),
        module(".section a {"),
        module(".global .b8 a[9][999999999999] = {{0}};"),
        format!(".global .b8 a{};", module("[1]")),
        format!(".global .b8 a[1][1] = {};", module("{")),
        format!(".attribute{}", module("(")),
        body("{"),
        body("{}"),
        body("{ l: }"),
        body("l"),
        body("l:"),
        body("f ["),
        body("f {"),
        body("f a;"),
        body("f 9"),
        format!(".entry e() {{ {} {}", "{".repeat(60), module("l: ")),
        format!(".entry e() {{ {} {}", "{".repeat(60), module("f a1234567890;")),
    ];
    let start = Instant::now();
    for text in &texts {
        // Whether it is PTX does not matter.
        let _ = parse(text);
    }
    assert!(start.elapsed() < Duration::from_secs(30), "took {:?}", start.elapsed());
}

/// What a line may be made of, so that chance gets past the first token.
#[rustfmt::skip]
const FRAGMENTS: &[&str] = &[
    ".version 9.0\n", ".target sm_80\n", ".address_size 64\n", ".file 1 \"a.cu\"\n", ".section .debug_str {",
    ".visible ", ".extern ", ".entry e", ".func ", ".global ", ".const ", ".shared ", ".local ", ".param ", ".reg ",
    ".align ", ".v4 ", ".b8 ", ".u32 ", ".f32 ", ".f64 ", ".b128 ", ".pred ", ".ptr ", ".attribute(.managed) ",
    ".maxntid ", ".pragma \"nounroll\";", ".loc 1 2 3\n", ".loc 1 2 3, function_name a, inlined_at 1 2 3\n",
    ".branchtargets ", "%r<4>", "%r1", "%p", "a", "b", "a: ", "_", "WARP_SZ", "%tid.x", "add.s32 ", "bra ",
    "call.uni ", "ld.global.L2::128B.v2.f32 ", "@%p ", "@!%p ", "!%p", "0", "1", "7", "0x1F", "0f3F800000",
    "0d3FF0000000000000", "18446744073709551615", "4294967295", "1.5", "-", "+", "=", "<", ">", "[", "]", "(", ")",
    "{", "}", ",", ";", ":", "|", " ", "\n", "// ", "/*", "*/", "\"", "é",
];

fn soup() -> impl Strategy<Value = String> {
    prop::collection::vec(select(FRAGMENTS), 0..100).prop_map(|fragments| fragments.concat())
}

proptest! {
    #[test]
    fn any_text(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn any_soup(text in soup()) {
        let _ = parse(&text);
    }

    #[test]
    fn any_soup_in_a_body(text in soup()) {
        let _ = parse(&format!(".entry e(.param .b32 a) {{ .reg .b32 %r<4>; {text} ret; }}"));
    }

    #[test]
    fn any_soup_in_an_initialiser(text in soup()) {
        let _ = parse(&format!(".global .b16 a[2][3] = {{ {text} }};"));
    }

    #[test]
    fn truncated(end in any::<Index>()) {
        let _ = parse(&PTX[..end.index(PTX.len())]);
    }

    #[test]
    fn bytes_flipped(flips in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8)) {
        let mut bytes = PTX.as_bytes().to_vec();
        for (index, byte) in flips {
            bytes[index.index(PTX.len())] = byte;
        }
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn lines_shuffled(order in prop::collection::vec(any::<Index>(), 0..400)) {
        let lines: Vec<_> = PTX.lines().collect();
        let shuffled: Vec<_> = order.iter().map(|index| *index.get(&lines)).collect();
        let _ = parse(&shuffled.join("\n"));
        let _ = parse(&format!(".entry e() {{\n{}\n}}", shuffled.join("\n")));
    }

    #[test]
    fn errors_name_a_line_of_the_text(end in any::<Index>()) {
        let text = &PTX[..end.index(PTX.len())];
        if let Err(error) = parse(text) {
            prop_assert!((1..=text.lines().count() as u32 + 1).contains(&error.line), "{error}");
            let line = format!("line {}: ", error.line);
            prop_assert!(error.to_string().starts_with(&line), "{error}");
        }
    }
}
