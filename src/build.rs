//! Makes cargo rebuild when a migration is added; sqlx only watches files that it knows.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
