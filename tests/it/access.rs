//! Who may do and see what over HTTP, and that nothing in documents or requests is executed.

mod injections;
mod roles;
mod schemathesis;
mod tenants;
mod test_service;
mod tokens;

use std::time::Duration;

use libtest_mimic::Trial;

use crate::harness::trial::{Needs, trial};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    // Downloads its packages on the first run.
    let fetching = Needs::NOTHING.within(Duration::from_secs(300)).using(|| schemathesis::program().map(drop));
    let alone = Needs::NOTHING.alone().within(Duration::from_secs(300));
    vec![
        trial!(Needs::NOTHING, tokens::a_token_opens_what_its_scopes_say_until_it_ends),
        trial!(Needs::NOTHING, tokens::every_route_asks_for_the_scope_that_is_described),
        trial!(Needs::NOTHING, tokens::revoking_the_last_token_lets_nobody_in),
        trial!(Needs::NOTHING, tokens::a_token_is_made_listed_and_revoked_on_the_command_line),
        trial!(Needs::NOTHING, tenants::a_tenant_sees_its_own_rows_and_no_others),
        trial!(Needs::NOTHING, tenants::a_tenant_sees_its_own_board_and_documents),
        trial!(Needs::NOTHING, tenants::a_tenant_is_recommended_its_own_documents_by_its_own_people),
        trial!(Needs::NOTHING, tenants::a_tenant_sees_its_own_leads),
        trial!(Needs::NOTHING, tenants::the_policies_hold_where_the_service_does_not_ask),
        trial!(Needs::NOTHING, tenants::a_pipeline_changes_its_tenant_only_by_an_order),
        trial!(Needs::NOTHING, tenants::a_pipeline_that_is_handed_over_is_closed_to_its_old_tenant_within_seconds),
        trial!(Needs::NOTHING, tenants::no_tenant_takes_over_what_another_has_computed),
        trial!(Needs::NOTHING, tenants::questions_leave_the_walk_its_connections),
        trial!(Needs::NOTHING, roles::the_role_is_made_once_however_many_databases_want_it),
        trial!(Needs::NOTHING, roles::who_may_not_make_the_role_hears_what_to_do),
        trial!(fetching, schemathesis::schemathesis_finds_no_fault_of_the_server),
        trial!(alone, injections::what_strangers_write_in_documents_stays_text),
        trial!(Needs::NOTHING, injections::what_strangers_send_to_the_api_stays_text),
    ]
}
