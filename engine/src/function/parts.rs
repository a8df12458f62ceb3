//! `year(time)`, `hour(time)` and their kin: the parts of a time by their own names, as JDBC's
//! escapes and tools that write queries have them.
//!
//! Each is DataFusion's `date_part` with the part filled in, and becomes that while a query is
//! planned, so that what the optimizer knows of `date_part` holds here, too. `isodow` is 1 on
//! Mondays and 7 on Sundays.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::common::types::{NativeType, logical_date, logical_string};
use datafusion::common::utils::take_function_args;
use datafusion::error::Result;
use datafusion::functions::datetime::date_part;
use datafusion::logical_expr::scalar_doc_sections::DOC_SECTION_DATETIME;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    Coercion, ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, TypeSignature, TypeSignatureClass, Volatility, lit,
};

/// Names of the functions, and what `date_part` calls the same.
const PARTS: [(&str, &str); 10] = [
    ("year", "year"),
    ("quarter", "quarter"),
    ("month", "month"),
    ("week", "week"),
    ("day", "day"),
    ("dayofyear", "doy"),
    ("isodow", "isodow"),
    ("hour", "hour"),
    ("minute", "minute"),
    ("second", "second"),
];

/// All of them.
pub(super) fn all() -> impl Iterator<Item = Arc<ScalarUDF>> {
    PARTS.into_iter().map(|(name, part)| Arc::new(Part::new(name, part).into()))
}

/// `date_part` of one part.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Part {
    name: &'static str,
    part: &'static str,
    signature: Signature,
    documentation: Documentation,
}

impl Part {
    fn new(name: &'static str, part: &'static str) -> Self {
        let exact = |class| TypeSignature::Coercible(vec![Coercion::new_exact(class)]);
        // A text is read as a time, as `date_part` does.
        let time = Coercion::new_implicit(
            TypeSignatureClass::Timestamp,
            vec![TypeSignatureClass::Native(logical_string())],
            NativeType::Timestamp(TimeUnit::Nanosecond, None),
        );
        let given = vec![
            TypeSignature::Coercible(vec![time]),
            exact(TypeSignatureClass::Native(logical_date())),
            exact(TypeSignatureClass::Time),
            exact(TypeSignatureClass::Interval),
            exact(TypeSignatureClass::Duration),
        ];
        let description = format!("Returns what date_part('{part}', expression) does.");
        let syntax = format!("{name}(expression)");
        Self {
            name,
            part,
            signature: Signature::one_of(given, Volatility::Immutable),
            documentation: Documentation::builder(DOC_SECTION_DATETIME, description, syntax)
                .build(),
        }
    }
}

impl ScalarUDFImpl for Part {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _given: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let [time] = take_function_args(self.name, args.arg_fields)?;
        Ok(Arc::new(Field::new(self.name, DataType::Int32, time.is_nullable())))
    }

    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let [time] = take_function_args(self.name, args)?;
        Ok(ExprSimplifyResult::Simplified(date_part().call(vec![lit(self.part), time])))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let part = ScalarValue::from(self.part);
        args.arg_fields.insert(0, Arc::new(Field::new("part", part.data_type(), false)));
        args.args.insert(0, ColumnarValue::Scalar(part));
        date_part().invoke_with_args(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, Date32Array, TimestampMicrosecondArray};
    use arrow::datatypes::Int32Type;
    use datafusion::config::ConfigOptions;

    /// Sunday, 31 December 2023, 23:58:59; then nothing.
    const SECOND: i64 = 1_704_067_139;

    fn answer(function: &ScalarUDF, times: &ArrayRef) -> Option<i32> {
        let args = ScalarFunctionArgs {
            number_rows: times.len(),
            arg_fields: vec![Arc::new(Field::new("t", times.data_type().clone(), true))],
            args: vec![ColumnarValue::Array(Arc::clone(times))],
            return_field: Arc::new(Field::new("r", DataType::Int32, true)),
            config_options: Arc::new(ConfigOptions::default()),
        };
        let answers = function.invoke_with_args(args).unwrap().into_array(times.len()).unwrap();
        let answers: Vec<_> = answers.as_primitive::<Int32Type>().iter().collect();
        assert_eq!(answers[1], None, "{}", function.name());
        answers[0]
    }

    #[test]
    fn each_answers_without_being_simplified_first() {
        let times = TimestampMicrosecondArray::from(vec![Some(SECOND * 1_000_000), None]);
        let east: ArrayRef = Arc::new(times.clone().with_timezone("+01:00"));
        let (times, days): (ArrayRef, ArrayRef) = (
            Arc::new(times),
            Arc::new(Date32Array::from(vec![Some((SECOND / 86_400) as i32), None])),
        );
        let of = |times| all().map(|f| answer(&f, times).unwrap()).collect::<Vec<_>>();
        assert_eq!(of(&times), [2023, 4, 12, 52, 31, 365, 7, 23, 58, 59]);
        assert_eq!(of(&days), [2023, 4, 12, 52, 31, 365, 7, 0, 0, 0]);
        assert_eq!(of(&east), [2024, 1, 1, 1, 1, 1, 1, 0, 58, 59]);
    }
}
