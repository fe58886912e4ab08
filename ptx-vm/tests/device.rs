//! Modules, buffers and launches, through the public interface alone.

use ptx_vm::{Checks, Device, Error, FaultKind, Launch, Module, Parameters, Pointer, Statistics};

/// A kernel `test(data)` with %rd1 the address of data, %r1 the thread and %rd2 the address of its word.
fn module(body: &str) -> Result<Module, Error> {
    Module::load(&format!(
        ".version 9.0\n.target sm_80\n.address_size 64\n\
         .global .align 4 .u32 counter = 5;\n\
         .visible .entry test(.param .u64 data) {{\n\
         .reg .pred %p<4>; .reg .b32 %r<10>; .reg .b64 %rd<10>;\n\
         ld.param.u64 %rd1, [data];\n\
         mov.u32 %r1, %tid.x;\n\
         mad.wide.u32 %rd2, %r1, 4, %rd1;\n\
         {body}\n}}"
    ))
}

fn launch(device: &mut Device, body: &str, launch: Launch, data: Pointer) -> Result<Statistics, Error> {
    device.launch(&module(body)?, "test", &launch, Parameters::new().pointer(data).bytes())
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

fn warps(count: u32) -> Launch {
    Launch { block: [32 * count, 1, 1], ..Launch::default() }
}

const STORE_THREAD: &str = "st.global.u32 [%rd2], %r1; ret;";

#[test]
fn what_is_not_in_the_table_is_refused_with_its_line() {
    let error = module("wmma.load.a.sync.aligned.row.m16n16k16.global.f16 {%r1}, [%rd1];").err().unwrap();
    assert_eq!(
        error.to_string(),
        "test: not supported: `wmma.load.a.sync.aligned.row.m16n16k16.global.f16 {%r1}, [%rd1];` on line 10 of the \
         PTX: no such instruction in the table"
    );
    for body in
        ["add.u32 %r1, %r2, %rd1;", "add.u32 5, %r1, %r2;", "add.u32 %r1, %r2;", "bra nowhere;", "mov.u32 %r1, %clock;"]
    {
        assert!(matches!(module(body), Err(Error::Unsupported { line: 10, .. })), "{body}");
    }
}

#[test]
fn arguments_that_do_not_fit() {
    let mut device = Device::new();
    let data = device.upload("data", &[0; 4]);
    let parameters = Parameters::new().pointer(data);
    let module = module(STORE_THREAD).unwrap();
    let mut refused =
        |kernel: &str, launch: Launch, parameters: &[u8]| match device.launch(&module, kernel, &launch, parameters) {
            Err(Error::Argument { argument, .. }) => argument,
            other => panic!("{other:?}"),
        };
    let one = Launch::default();
    assert_eq!(refused("tset", one, parameters.bytes()), "kernel");
    assert_eq!(refused("test", one, &[0; 7]), "parameters");
    assert_eq!(refused("test", Launch { grid: [1, 0, 1], ..one }, parameters.bytes()), "grid");
    assert_eq!(refused("test", Launch { block: [1025, 1, 1], ..one }, parameters.bytes()), "block");
    assert_eq!(refused("test", Launch { block: [u32::MAX; 3], ..one }, parameters.bytes()), "block");
    assert_eq!(refused("test", Launch { dynamic_shared: 228 << 10, ..one }, parameters.bytes()), "shared memory");
}

#[test]
fn buffers_that_were_freed() {
    let mut device = Device::new();
    let data = device.upload("data", &[0; 4]);
    device.free(data);
    assert!(device.read(data).is_err());
    let error = launch(&mut device, STORE_THREAD, Launch::default(), data).unwrap_err();
    assert_eq!(error.fault().map(|fault| fault.kind), Some(FaultKind::OutOfBounds));
}

#[test]
fn variables_of_a_module_keep_their_value() {
    let module =
        module("mov.u64 %rd3, counter; atom.global.add.u32 %r2, [%rd3], 1; st.global.u32 [%rd2], %r2; ret;").unwrap();
    let mut device = Device::new();
    let data = device.upload("data", &[0; 4]);
    for expected in [5, 6, 7] {
        device.launch(&module, "test", &Launch::default(), Parameters::new().pointer(data).bytes()).unwrap();
        assert_eq!(words(&device.read(data).unwrap()), [expected]);
    }
}

#[test]
fn lanes_part_at_a_branch_table_and_meet_again() {
    let body = "
        and.b32 %r2, %r1, 3;
        mov.u32 %r3, 0;
        ways: .branchtargets one, two, three, two;
        brx.idx %r2, ways;
        one: add.u32 %r3, %r3, 1; bra.uni join;
        two: add.u32 %r3, %r3, 20; bra.uni join;
        three: add.u32 %r3, %r3, 300;
        join: activemask.b32 %r4;
        add.u32 %r3, %r3, %r4;
        st.global.u32 [%rd2], %r3; ret;";
    let mut device = Device::new();
    let data = device.allocate("data", 4 * 32);
    launch(&mut device, body, warps(1), data).unwrap();
    // All lanes are active: adding the mask takes away one.
    let expected: Vec<u32> = (0..32).map(|lane| [0, 19, 299, 19][lane % 4]).collect();
    assert_eq!(words(&device.read(data).unwrap()), expected);

    let error = launch(&mut device, &body.replace("3;\n        mov", "7;\n        mov"), warps(1), data).unwrap_err();
    assert_eq!(error.fault().map(|fault| fault.kind), Some(FaultKind::Undefined));
}

#[test]
fn traps_and_branches_past_the_end() {
    let mut device = Device::new();
    let data = device.upload("data", &[0; 4]);
    let error = launch(&mut device, "trap;", Launch::default(), data).unwrap_err();
    assert_eq!(error.fault().map(|fault| fault.kind), Some(FaultKind::Trap));
    launch(&mut device, "bra.uni end; trap; end:", Launch::default(), data).unwrap();
}

#[test]
fn sectors_and_bank_conflicts_are_counted_where_asked() {
    let body = "
        .shared .align 16 .b8 stage[4096];
        mov.u32 %r2, stage;
        mad.lo.u32 %r3, %r1, 128, %r2;
        ld.global.u32 %r4, [%rd2];
        st.shared.u32 [%r3], %r4;
        ld.shared.u32 %r5, [%r3];
        st.global.u32 [%rd2], %r5; ret;";
    let mut device = Device::new();
    let data = device.upload("data", &[0; 128]);
    let counted = launch(&mut device, body, Launch { count: true, ..warps(1) }, data).unwrap();
    assert_eq!((counted.global_loads.requests, counted.global_loads.bytes, counted.global_loads.sectors), (1, 128, 4));
    assert_eq!(counted.global_stores, counted.global_loads);
    assert_eq!((counted.shared_stores.bank_conflicts, counted.shared_loads.bank_conflicts), (31, 31));
    assert_eq!(counted.lane_instructions, 32 * counted.warp_instructions);
    let uncounted = launch(&mut device, body, warps(1), data).unwrap();
    assert_eq!(uncounted.global_loads.requests, 0);
    assert_eq!(uncounted.warp_instructions, counted.warp_instructions);
}

#[test]
fn blocks_side_by_side_give_what_they_give_one_by_one() {
    let body = "
        mov.u32 %r2, %ctaid.x;
        mov.u32 %r3, %ntid.x;
        mad.lo.u32 %r4, %r2, %r3, %r1;
        mad.wide.u32 %rd3, %r4, 4, %rd1;
        mul.lo.u32 %r5, %r4, %r4;
        st.global.u32 [%rd3+4], %r5;
        red.global.add.u32 [%rd1], 1; ret;";
    let results = [Checks::Full, Checks::Bounds].map(|checks| {
        let mut device = Device::new();
        let data = device.upload("data", &[0; 4 * (1 + 64 * 100)]);
        let launched = Launch { grid: [100, 1, 1], checks, ..warps(2) };
        let statistics = launch(&mut device, body, launched, data).unwrap();
        (device.read(data).unwrap(), statistics.warp_instructions)
    });
    assert_eq!(results[0], results[1]);
    assert_eq!(words(&results[0].0)[0], 6400);
}

#[test]
fn an_instruction_limit_holds_for_all_blocks_together() {
    let mut device = Device::new();
    let data = device.upload("data", &[0; 4]);
    let limited = Launch { instruction_limit: 10_000, ..Launch::default() };
    for checks in [Checks::Full, Checks::Bounds] {
        let error = launch(&mut device, "again: bra.uni again;", Launch { checks, ..limited }, data).unwrap_err();
        assert_eq!(error.fault().map(|fault| fault.kind), Some(FaultKind::InstructionLimit));
    }
}

#[test]
fn copies_of_any_number_of_bytes_read_no_more() {
    for bytes in 0..=16_usize {
        let mut device = Device::new();
        let body = format!(
            ".shared .align 16 .b8 stage[16];\n\
             cp.async.cg.shared.global [stage], [%rd1], 16, {bytes};\n\
             cp.async.wait_all;\n\
             ld.shared.v4.u32 {{%r2, %r3, %r4, %r5}}, [stage];\n\
             ld.param.u64 %rd3, [data];\n\
             st.global.v4.u32 [%rd3 + 16], {{%r2, %r3, %r4, %r5}}; ret;"
        );
        // The source ends with the buffer where a tail of it is copied.
        let source: Vec<u8> = (1..=16).map(|byte| if byte <= bytes { byte as u8 } else { 0 }).collect();
        let data = device.upload("data", &[source.clone(), vec![0xff; 16]].concat());
        launch(&mut device, &body, Launch::default(), data).unwrap();
        assert_eq!(device.read(data).unwrap()[16..], source[..], "{bytes} bytes");

        let tail = device.upload("tail", &source[..bytes.max(1)]);
        let body = format!(
            ".shared .align 16 .b8 stage[16];\n\
             cp.async.cg.shared.global [stage], [%rd1], 16, {bytes};\n\
             cp.async.wait_all; ret;"
        );
        launch(&mut device, &body, Launch::default(), tail).unwrap();
    }
}

#[test]
fn copies_are_counted_as_what_they_read_and_write() {
    let mut device = Device::new();
    // 8 lanes for each row of 128 bytes, a row every 256 bytes; every fourth row is all zeros, and not read.
    let body = ".shared .align 16 .b8 stage[512];\n\
         shr.u32 %r2, %r1, 3; and.b32 %r3, %r1, 7;\n\
         mad.lo.u32 %r4, %r2, 256, 0; mad.lo.u32 %r4, %r3, 16, %r4;\n\
         cvt.u64.u32 %rd3, %r4; add.s64 %rd3, %rd1, %rd3;\n\
         mov.u32 %r5, stage; mad.lo.u32 %r5, %r1, 16, %r5;\n\
         setp.eq.u32 %p1, %r2, 3; selp.u32 %r6, 0, 16, %p1;\n\
         cp.async.cg.shared.global [%r5], [%rd3], 16, %r6;\n\
         cp.async.wait_all; ret;";
    let data = device.upload("data", &[1; 1024]);
    let counted = launch(&mut device, body, Launch { count: true, ..warps(1) }, data).unwrap();
    assert_eq!((counted.global_loads.bytes, counted.global_loads.sectors), (3 * 128, 3 * 4));
    assert_eq!((counted.shared_stores.bytes, counted.shared_stores.bank_conflicts), (512, 0));
    assert_eq!(counted.copied_bytes, 512);
}

#[test]
fn clusters_and_their_registers() {
    let body = "mov.u32 %r1, %ctaid.x; mov.u32 %r2, %nctaid.x; mov.u32 %r3, %ctaid.y; mad.lo.u32 %r1, %r3, %r2, %r1;\n\
                mad.wide.u32 %rd2, %r1, 4, %rd1;\n\
                mov.u32 %r1, %cluster_ctarank; mov.u32 %r2, %clusterid.x; mad.lo.u32 %r1, %r2, 16, %r1;\n\
                mov.u32 %r2, %cluster_ctaid.y; mad.lo.u32 %r1, %r2, 256, %r1;\n\
                mov.u32 %r2, %cluster_nctarank; mad.lo.u32 %r1, %r2, 4096, %r1;\n\
                mov.u32 %r2, %nclusterid.x; mad.lo.u32 %r1, %r2, 65536, %r1;\n\
                mov.pred %p1, %is_explicit_cluster; @%p1 st.global.u32 [%rd2], %r1; ret;";
    let mut device = Device::new();
    let data = device.allocate("data", 4 * 8);
    let how = Launch { grid: [4, 2, 1], cluster: [2, 2, 1], ..Launch::default() };
    launch(&mut device, body, how, data).unwrap();
    let expected: Vec<u32> = (0..8_u32)
        .map(|block| {
            let (x, y) = (block % 4, block / 4);
            (x % 2 + 2 * y) + 16 * (x / 2) + 256 * y + 4096 * 4 + 65536 * 2
        })
        .collect();
    assert_eq!(words(&device.read(data).unwrap()), expected);

    for (grid, cluster, argument) in [([4, 1, 1], [3, 1, 1], "grid"), ([32, 1, 1], [32, 1, 1], "cluster")] {
        let how = Launch { grid, cluster, ..Launch::default() };
        match launch(&mut device, body, how, data) {
            Err(Error::Argument { argument: found, .. }) => assert_eq!(found, argument),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn bulk_copies_are_counted() {
    let body = "
        .shared .align 16 .b8 tile[256];
        .shared .align 8 .b8 barrier[8];
        mbarrier.init.shared::cta.b64 [barrier], 1;
        fence.mbarrier_init.release.cluster;
        mbarrier.arrive.expect_tx.shared::cta.b64 _, [barrier], 256;
        cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [tile], [%rd1], 256, [barrier];
        wait: mbarrier.try_wait.parity.shared::cta.b64 %p1, [barrier], 0, 1000;
        @!%p1 bra wait;
        ld.shared.u32 %r2, [tile+252];
        st.global.u32 [%rd1], %r2; ret;";
    let mut device = Device::new();
    let data = device.upload("data", &[7; 256]);
    let counted = launch(&mut device, body, Launch { count: true, ..Launch::default() }, data).unwrap();
    assert_eq!(counted.copied_bytes, 256);
    let Statistics { global_loads, shared_stores, .. } = counted;
    assert_eq!((global_loads.requests, global_loads.bytes, global_loads.sectors), (1, 256, 8));
    assert_eq!((shared_stores.requests, shared_stores.bytes), (1, 256));
}

#[test]
fn a_null_pointer_leads_nowhere() {
    let mut device = Device::new();
    let data = device.upload("data", &[0; 4]);
    for load in ["ld.u32", "ld.global.u32", "ld.volatile.u32"] {
        let body = format!("mov.u64 %rd3, 0; {load} %r2, [%rd3]; st.global.u32 [%rd2], %r2; ret;");
        let error = launch(&mut device, &body, Launch::default(), data).unwrap_err();
        assert_eq!(error.fault().map(|fault| fault.kind), Some(FaultKind::OutOfBounds), "{load}");
    }
    let body = "mov.b64 %rd3, data; cvta.param.u64 %rd3, %rd3; ld.u32 %r2, [%rd3+4]; st.global.u32 [%rd1], %r2; ret;";
    launch(&mut device, body, Launch::default(), data).unwrap();
    assert_eq!(words(&device.read(data).unwrap()), [(data.address() >> 32) as u32]);
}

#[test]
fn parameters_one_by_one() {
    let fields = Parameters::new().u32(1).tensor_map(&[2; 128]).u32(3);
    let parameters = Parameters::new().u32(4).structure(fields).u64(5);
    let each: Vec<&[u8]> = parameters.each().collect();
    // What fills up to the next begin belongs to the one before.
    assert_eq!(each.iter().map(|bytes| bytes.len()).collect::<Vec<_>>(), [64, 256, 8]);
    assert_eq!(each.concat(), parameters.bytes());
    assert_eq!([each[0][0], each[1][0], each[1][64], each[1][192], each[2][0]], [4, 1, 2, 3, 5]);
}

#[test]
fn bytes_are_copied_within_buffers_where_they_were_written() {
    let mut device = Device::new();
    let (from, to) = (device.upload("from", &[1, 2, 3, 4]), device.upload("to", &[0; 4]));
    device.copy(from.address() + 1, to.address() + 2, 2).unwrap();
    assert_eq!(device.read(to).unwrap(), [0, 0, 2, 3]);
    let unwritten = device.allocate("unwritten", 4);
    for (from, to) in
        [(from.address() + 3, to.address()), (from.address(), to.address() + 3), (unwritten.address(), to.address())]
    {
        assert!(matches!(device.copy(from, to, 2), Err(Error::Argument { .. })));
    }
}
