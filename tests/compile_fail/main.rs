//! What must not compile: outputs that alias inputs or outlive their buffers, and buffers that change hands meanwhile.

#[test]
fn borrows_are_the_compilers_to_check() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/cases/*.rs");
}
