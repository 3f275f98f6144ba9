//! The words of a transaction: `TXN [IF compare ...] [THEN operation ...] [ELSE operation ...] END`.
//!
//! ```text
//! compare    VALUE|VERSION|CREATE|MOD|LEASE key [TO end|PREFIX|FROM] =|!=|<|> operand
//! operation  PUT ..., GET ..., RANGE ..., DEL ... as they are alone, or TXN ... END
//! ```
//!
//! What each word is follows from those before it: keys, values and operands have their places, options end at the first
//! word that is none, and no option has the name of a section or of an operation. So a key may be any bytes here too. The
//! reader calls itself for a transaction within a transaction, [`limits::TXN_DEPTH_MAX`] levels deep at most.

use super::command::{self, Call};
use super::reply::Shape;
use super::table::{self, Run};
use crate::api::{Compare, CompareResult, Fault, Op, Request, Target, Txn};
use crate::base::limits;

/// How the answers to a transaction's operations are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnShape {
    pub success: Vec<Shape>,
    pub failure: Vec<Shape>,
}

const SECTIONS: [&str; 4] = ["IF", "THEN", "ELSE", "END"];

pub fn request(call: Call<'_>) -> Result<(Request, Shape), Fault> {
    let mut reader = Reader { call, next: call.first };
    let (txn, shape) = reader.txn(1)?;
    if reader.next < call.words.count() {
        return Err(call.fault_at(reader.next, "is behind the END of the transaction"));
    }
    Ok((Request::Txn(txn), Shape::Txn(shape)))
}

struct Reader<'a> {
    call: Call<'a>,
    next: usize,
}

impl Reader<'_> {
    /// From the word behind TXN to that behind END.
    fn txn(&mut self, depth: usize) -> Result<(Txn, TxnShape), Fault> {
        if depth > limits::TXN_DEPTH_MAX {
            return Err(Fault::too_many_ops());
        }
        let (mut txn, mut shape) = (Txn::default(), TxnShape::default());
        if self.take("IF") {
            while !self.at_section()? {
                txn.compares.push(self.compare()?);
            }
        }
        if self.take("THEN") {
            (txn.success, shape.success) = self.operations(depth)?;
        }
        if self.take("ELSE") {
            (txn.failure, shape.failure) = self.operations(depth)?;
        }
        self.more()?;
        if !self.take("END") {
            return Err(self.wrong("must be IF, THEN, ELSE or END, each once and in this order"));
        }
        Ok((txn, shape))
    }

    fn compare(&mut self) -> Result<Compare, Fault> {
        let words = self.call.words;
        let target = self.next;
        let of = |name: &str| words.is(target, name);
        if !["VALUE", "VERSION", "CREATE", "MOD", "LEASE"].into_iter().any(of) {
            return Err(self.wrong("must be VALUE, VERSION, CREATE, MOD or LEASE"));
        }
        self.next += 1;
        self.more()?;
        let (span, next) = command::span(self.call, self.next)?;
        self.next = next;
        self.more()?;
        let result = match words.get(self.next) {
            b"=" => CompareResult::Equal,
            b"!=" => CompareResult::NotEqual,
            b"<" => CompareResult::Less,
            b">" => CompareResult::Greater,
            _ => return Err(self.wrong("must be =, !=, < or >")),
        };
        self.next += 1;
        self.more()?;
        let operand = self.next;
        let number = || {
            signed(words.get(operand))
                .ok_or_else(|| self.wrong("must be a number: decimal, of 64 bits, signed"))
        };
        let target = match () {
            () if of("VALUE") => Target::Value(words.share(operand)),
            () if of("VERSION") => Target::Version(number()?),
            () if of("CREATE") => Target::Create(number()?),
            () if of("MOD") => Target::Mod(number()?),
            () => Target::Lease(number()?),
        };
        self.next += 1;
        Ok(Compare { span, target, result })
    }

    /// Up to the next section.
    fn operations(&mut self, depth: usize) -> Result<(Vec<Op>, Vec<Shape>), Fault> {
        let (mut ops, mut shapes) = (Vec::new(), Vec::new());
        while !self.at_section()? {
            let (op, shape) = self.operation(depth)?;
            ops.push(op);
            shapes.push(shape);
        }
        Ok((ops, shapes))
    }

    fn operation(&mut self, depth: usize) -> Result<(Op, Shape), Fault> {
        let words = self.call.words;
        let spec = table::find(words.get(self.next));
        let first = self.next + 1;
        match spec {
            Some(spec) if spec.run == Run::Txn => {
                self.next = first;
                let (txn, shape) = self.txn(depth + 1)?;
                Ok((Op::Txn(txn), Shape::Txn(shape)))
            }
            Some(spec) if [Run::Put, Run::Get, Run::Range, Run::Del].contains(&spec.run) => {
                let call = Call { spec, container: None, words, first };
                if call.count() < spec.words().0 {
                    return Err(call.fault("wrong number of words"));
                }
                let (op, shape, next) = command::operation(call)?.expect("it is one of those");
                self.next = next;
                Ok((op, shape))
            }
            _ => Err(self.wrong("must be PUT, GET, RANGE, DEL, TXN, ELSE or END")),
        }
    }

    fn at_section(&self) -> Result<bool, Fault> {
        self.more()?;
        Ok(SECTIONS.iter().any(|section| self.call.words.is(self.next, section)))
    }

    fn take(&mut self, section: &str) -> bool {
        let there = self.next < self.call.words.count() && self.call.words.is(self.next, section);
        self.next += usize::from(there);
        there
    }

    /// There is another word.
    fn more(&self) -> Result<(), Fault> {
        if self.next < self.call.words.count() {
            return Ok(());
        }
        Err(self.call.fault("the transaction has no END"))
    }

    fn wrong(&self, what: &str) -> Fault {
        self.call.fault_at(self.next, what)
    }
}

/// Digits, perhaps behind a minus sign.
fn signed(word: &[u8]) -> Option<i64> {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    let decimal = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    decimal.then(|| std::str::from_utf8(word).ok()?.parse().ok())?
}
